"""Real tools do their work on every rung that confines: what agents run all day."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from alcove.sandbox.plan import Rung
from sandbox.conftest import PYTHON, ROOT, World

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

GIT = """
git init -q . && git config user.email a@b && git config user.name a
echo one > file && git add . && git commit -qm one && git switch -qc other && echo two > file && git commit -qam two
git clone -q . copy && git -C copy log --oneline | wc -l && git gc -q && git fsck
"""
NODE = """
cat > main.js <<'END'
const { execFileSync } = require("child_process"), fs = require("fs"), { Worker } = require("worker_threads");
fs.writeFileSync("made", execFileSync("echo", ["hello"]));
new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true }).on("message", (answer) => {
  console.log(fs.readFileSync("made", "utf8").trim(), answer, require("os").cpus().length > 0);
});
END
node main.js
"""
VENV = """
{python} -m venv --without-pip env && env/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'
"""
PIP = """
mkdir -p package/mine && echo 'answer = 42' > package/mine/__init__.py
cat > package/setup.py <<'END'
from setuptools import setup
setup(name="mine", version="1", packages=["mine"])
END
{python} -m venv env && env/bin/pip --quiet --disable-pip-version-check install --no-index --no-build-isolation \\
    --no-use-pep517 ./package
env/bin/python -c 'import mine; print(mine.answer)'
"""
TESTS = """
cat > test_it.py <<'END'
import asyncio, subprocess, sys, tempfile, threading, unittest
class It(unittest.TestCase):
    def test_programs(self):
        self.assertEqual(subprocess.check_output([sys.executable, "-c", "print(1)"]), b"1\\n")
    def test_asyncio(self):
        async def main():
            process = await asyncio.create_subprocess_exec("true")
            return await process.wait()
        self.assertEqual(asyncio.run(main()), 0)
    def test_threads_and_files(self):
        with tempfile.TemporaryDirectory() as folder:
            threads = [threading.Thread(target=open(f"{folder}/{n}", "w").close) for n in range(20)]
            [thread.start() for thread in threads]; [thread.join() for thread in threads]
END
PY -m unittest -q test_it 2>&1 | tail -1
"""
PYTEST = """
cat > test_it.py <<'END'
import pytest
@pytest.mark.parametrize("number", range(3))
def test_numbers(number, tmp_path):
    (tmp_path / "file").write_text(str(number))
    assert (tmp_path / "file").read_text() == str(number)
END
PYTHONPATH=lib PY -m pytest -q -p no:cacheprovider test_it.py 2>&1 | tail -1
"""
PYTEST_NEEDS = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")
NPM = """
mkdir mine && cd mine && npm init -y > /dev/null && echo 'module.exports = 42' > index.js && npm pack --silent && cd ..
mkdir app && cd app && npm init -y > /dev/null
npm install --offline --no-audit --no-fund --silent ../mine/mine-1.0.0.tgz
npm pkg set scripts.answer="node -p 'require(\\\"mine\\\")'" && npm run --silent answer
"""
PTY = """
PY -c 'import pty, sys; sys.exit(pty.spawn(["sh", "-c", "test -t 0 && stty size && tty && echo on it"]) >> 8)'
"""


async def answer(world: World, script: str) -> bytes:
    """Run a script with what a session of the rung has, and return what it said."""
    folder = world.session()
    temporary = f"{folder}/.tmp"
    os.makedirs(temporary, exist_ok=True)
    os.chmod(temporary, 0o777)
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": folder, "TMPDIR": temporary, "LANG": "C.UTF-8"}
    if world.sandbox.guarded and ROOT:  # as runs get it (`runs/place.py`)
        env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": folder}
    outcome = await world.shell(script.replace("PY ", f"{PYTHON} ").replace("{python}", PYTHON), env=env)
    assert outcome.exit.code == 0, outcome
    return outcome.stdout


async def test_git(confined_world: World) -> None:
    assert b"2\n" in await answer(confined_world, GIT)


async def test_node(confined_world: World) -> None:
    assert shutil.which("node"), "apt-get install nodejs: this test is long, and asked for by name"
    assert await answer(confined_world, NODE) == b"hello 42 true\n"


async def test_a_virtual_environment(confined_world: World) -> None:
    assert await answer(confined_world, VENV) == b"True\n"


async def test_pip_installs_a_package(confined_world: World) -> None:
    assert await answer(confined_world, PIP) == b"42\n"


async def test_a_test_suite(confined_world: World) -> None:
    assert await answer(confined_world, TESTS) == b"OK\n"


async def test_pytest(confined_world: World) -> None:
    lib = Path(confined_world.session()) / "lib"
    lib.mkdir()
    for name in PYTEST_NEEDS:
        spec = importlib.util.find_spec(name)
        assert spec
        assert spec.origin
        if spec.submodule_search_locations:
            shutil.copytree(Path(spec.origin).parent, lib / name)
        else:
            shutil.copy(spec.origin, lib)
    subprocess.run(["chmod", "-R", "a+rX", lib], check=True)
    assert (await answer(confined_world, PYTEST)).startswith(b"3 passed")


async def test_npm(confined_world: World) -> None:
    assert shutil.which("npm"), "apt-get install npm: this test is long, and asked for by name"
    assert await answer(confined_world, NPM) == b"mine-1.0.0.tgz\n42\n"


async def test_a_terminal(confined_world: World, confined: Rung) -> None:
    if confined == "landlock" and not ROOT:
        pytest.skip("the terminals of the user who runs the server are closed to its runs")
    assert b"on it" in await answer(confined_world, PTY)
