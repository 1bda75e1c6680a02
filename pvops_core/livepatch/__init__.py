"""Live patching after Xen's xSplice / livepatch: the text of a running guest is replaced with every vCPU quiet.

``registry`` holds the payloads and their states, ``rendezvous`` gathers the vCPUs, ``action`` is what happens in the
quiet zone, ``manager`` puts them together on a machine; ``objects`` and ``linking`` turn ELF files into payloads.
"""
