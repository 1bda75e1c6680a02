"""What a toolstack says of a domain, and asks of it."""

from __future__ import annotations

from pvops_xen.xenstore.toolstack import request_shutdown
from pvops_xen.xenstore.wire import Type

from plugins.xen.tests.xenstore_rig import DOMID, HOME, Client


def test_what_a_toolstack_says_of_a_domain(client: Client) -> None:
    assert client.ask(Type.READ, "name") == b"guest"
    assert client.ask(Type.READ, f"{HOME}/memory/target") == b"65536"
    vm = client.ask(Type.READ, "vm").decode()
    assert client.ask(Type.READ, f"{vm}/name") == b"guest"
    assert client.ask(Type.DIRECTORY, "cpu") == b"0\x001\x00"
    assert client.ask(Type.READ, "control/shutdown") == b""
    assert client.ask(Type.GET_DOMAIN_PATH, "7") == b"/local/domain/7\0"
    assert client.ask(Type.IS_DOMAIN_INTRODUCED, str(DOMID)) == b"T\0"
    assert client.ask(Type.IS_DOMAIN_INTRODUCED, "44") == b"F\0"


def test_the_toolstack_asks_for_a_shutdown(client: Client) -> None:
    client.ask(Type.WATCH, "control/shutdown", "sd")
    client.hear()
    request_shutdown(client.daemon, DOMID, "reboot")
    assert client.hear() == [("control/shutdown", "sd")]
    number = int(client.ask(Type.TRANSACTION_START, "")[:-1])
    assert client.ask(Type.READ, "control/shutdown", transaction=number) == b"reboot"
    client.write("control/shutdown", b"", number)
    assert client.ask(Type.TRANSACTION_END, "T", transaction=number) == b"OK\0"
    assert client.ask(Type.READ, "control/shutdown") == b""
