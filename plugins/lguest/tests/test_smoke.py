from pvops_lguest.host.abi import Call

from .rig import DATA, Program


def test_smoke(host):
    p = Program()
    host.call_code(p, Call.LGUEST_INIT, DATA)
    p.store(0x130000, 0x1234)
    p.store(0x130100, 0x4E4F4F42)
    host.call_code(p, Call.CRASH, 0x130100)
    p.hang()
    host.program(p)
    assert host.ends() == ("crash", "CRASH: BOON")
