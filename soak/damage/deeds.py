"""What a bad plugin may do: source of a function's body, by name; the names say what is to be seen of it."""

from __future__ import annotations

from typing import Final

_RAISING: Final = {
    "value": "raise ValueError('no such index')",
    "exit": "raise SystemExit(3)",
    "exit without a code": "sys.exit()",
    "interrupt": "raise KeyboardInterrupt",
    "generator": "raise GeneratorExit",
    "base": "raise Odd('very')",
    "surrogate": r"raise ValueError('half \udc80 \x1b[31m a pair')",
    "long": "raise ValueError('x' * 1_000_000)",
    "lines": r"raise ValueError('one\ntwo\r\n' * 1000)",
    "recursion": "deep()",
    "memory": "raise MemoryError",
    "speechless": "raise Speechless",
    "os error": "raise BlockingIOError(11, 'later')",
    "stop iteration": "raise StopIteration",
    "timeout": "raise TimeoutError",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise LookupError from error",
    "group": "raise ExceptionGroup('two', [ValueError(1), KeyError(2)])",
    "warning": "raise DeprecationWarning('old')",
}
_ENDING: Final = {
    "_exit": "os._exit(9)",
    "_exit with 0": "os._exit(0)",
    "abort": "os.abort()",
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "term": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)",
    "segv": "ctypes.string_at(0)",
    "hang": "while True: pass",
    "sleep": "time.sleep(100)",
    "alarm": "signal.setitimer(signal.ITIMER_REAL, 0.05); time.sleep(5)",
}
_QUIET: Final = {
    "closes": "for each in range(3, 64):\n    try:\n        os.close(each)\n    except OSError:\n        pass",
    "writes": r"os.write(1, b'{\"garbage\"\n' * 1000)",
    "writes to 2": r"os.write(2, b'\xff\xfe\n' * 1000)",
    "closes stdout": "sys.stdout.close()",
    "no stderr": "sys.stderr = None",
    "thread": "threading.Thread(target=time.sleep, args=(60,)).start()",
    "child": "subprocess.Popen(['sleep', '601'])",
    "daemon": "subprocess.Popen(['sleep', '601'], start_new_session=True)",
    "ignores": "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "descriptors": "resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))",
    "depth": "sys.setrecursionlimit(60)",
    "paths": "sys.path.clear(); os.chdir('/')",
    "fork": "if os.fork() == 0:\n    time.sleep(601)",
    "warns": "warnings.warn('warned')",
    "trace": "sys.settrace(lambda *_: 1 / 0)",
    "modules": "sys.modules.pop('json', None); sys.modules['pvops_core'] = None",
}
DEEDS: Final = _RAISING | _ENDING | _QUIET
RAISES: Final = frozenset(_RAISING)
"""An error that has to be told with its plugin and hook."""
ENDS_IT: Final = frozenset(_ENDING)
"""The process ends, or does not: that has to be told too."""
RETURNS: Final = {"text": "'text'", "below 0": "-1", "too wide": "1 << 200", "none": "None", "object": "object()"}
"""What a hook may give back that is no number of its op's."""
