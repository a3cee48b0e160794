"""The bits of small nets on ARM, in an emulator: Debian with qemu-user, an arm64 Python, and the wheels for it.

    apt-get install qemu-user && python scripts/bits_on_arm.py [FOLDER [NET ...]]

NET: of those of ``kobai verify``; by default the smallest, mlp. Nothing is installed: packages are unpacked into the folder
(200 MB), which is used again if it is there, as is what was compiled: the first net takes half an hour. Exits with 0 if the
hashes are those that are shipped, and with 1 if not.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src"
CODE = """
import platform, sys
from kobai.bits import verify
print(platform.machine())
report = verify(sys.argv[1:] or ["mlp"], lambda net: print(net, flush=True))
print(report.versions, f"{report.seconds:.0f} s", sep="\\n")
sys.exit(not all(net.same for net in report.nets))
"""


def unpacked_python(folder: Path) -> Path:
    """The root of a system for arm64 that has Python, and nothing else."""
    root = folder / "root"
    if root.exists():
        return root
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    subprocess.run([*apt, "update"], check=True)
    wanted = ["python3", "libstdc++6"]
    subprocess.run([*apt, "install", "--yes", "--download-only", "--no-install-recommends", *wanted], check=True)
    for package in sorted((folder / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", package, folder / "new"], check=True)
    (folder / "new").rename(root)
    return root


def wheels(folder: Path, python: str) -> Path:
    """What Kobai needs, in the versions that are installed here."""
    site = folder / "site"
    if not site.exists():
        same = [f"{name}=={version(name)}" for name in ("numpy", "numba", "llvmlite", "ml_dtypes", "threadpoolctl")]
        systems = [f"--platform=manylinux{kind}_aarch64" for kind in ("2014", "_2_17", "_2_27", "_2_28")]
        options = ["--quiet", "--only-binary=:all:", "--no-deps", f"--python-version={python}", *systems]
        pip = [sys.executable, "-m", "pip", "install", *options, f"--target={folder / 'new-site'}"]
        subprocess.run([*pip, *same, "safetensors"], check=True)
        (folder / "new-site").rename(site)
    return site


def main() -> int:
    """Train there, and compare."""
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if qemu is None or shutil.which("apt-get") is None:
        sys.exit("bits_on_arm.py: needs Debian's qemu-user: apt-get install qemu-user")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="kobai-arm-")).resolve()
    folder.mkdir(exist_ok=True)
    root = unpacked_python(folder)
    python = (root / "usr/bin/python3").resolve().name  # python3.11
    paths = os.pathsep.join(map(str, (SOURCE, wheels(folder, python.removeprefix("python")))))
    kept = {"KOBAI_CACHE": str(folder / "code"), "NUMBA_CACHE_DIR": str(folder / "code" / "numba")}
    settings = {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **kept}
    command = [qemu, "-L", str(root), str(root / "usr/bin" / python), "-c", CODE, *sys.argv[2:]]
    return subprocess.run(command, env={**os.environ, **settings}).returncode


if __name__ == "__main__":
    sys.exit(main())
