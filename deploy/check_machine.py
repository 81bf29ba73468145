"""Check what the install needs from the machine, before anything is downloaded: `python3 deploy/check_machine.py`.

Runs on any Python 3, and before the install: only the standard library, and no syntax newer than 3.6.
"""

import os
import shutil
import sys
import sysconfig


def lacks(version, compiler, headers, venv):
    """The first thing that is missing, as one line with its cure; None when all is there.

    `version` is (major, minor), `compiler` the path of g++ or None, `headers` whether Python.h exists, `venv` whether
    ensurepip can be imported.
    """
    python = "python{}.{}".format(*version)
    if not (3, 11) <= version <= (3, 12):
        return f"{python} cannot be used: 3.11 or 3.12 is needed; name one: make test PYTHON=python3.11"
    if not venv:
        return f"{python} cannot make a virtual environment; on Debian or Ubuntu: apt-get install {python}-venv"
    if compiler is None:
        return "g++ is missing: pydensecrf2 is built from source; on Debian or Ubuntu: apt-get install g++"
    if not headers:
        return (
            f"Python.h is missing: pydensecrf2 is built from source; on Debian or Ubuntu: apt-get install {python}-dev"
        )
    return None


def main():
    """Exit 2 with one line when something is missing."""
    try:
        import ensurepip  # noqa: F401

        venv = True
    except ImportError:
        venv = False
    header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
    problem = lacks(tuple(sys.version_info[:2]), shutil.which("g++"), os.path.exists(header), venv)
    if problem:
        print("error: " + problem, file=sys.stderr)
        sys.exit(2)
    print("setting up .venv: minutes the first time, most of it downloading torch and ray and building pydensecrf2")


if __name__ == "__main__":
    main()
