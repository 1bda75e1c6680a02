"""The engine: the only folder that knows Unicorn, ctypes and code made at run time."""
