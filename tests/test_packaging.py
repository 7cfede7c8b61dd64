"""napari finds the plugin, whether it was installed from a checkout or from a wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

import napari_sparsetok

PACKAGE = Path(napari_sparsetok.__file__).parent
CHECKOUT = PACKAGE.parent

DISCOVER = """
import json
from npe2 import PluginManager
manager = PluginManager()
manager.discover()
manifest = manager.get_manifest("napari-sparsetok")
import napari_sparsetok
c = manifest.contributions
print(json.dumps({
    "package": napari_sparsetok.__file__,
    "display_name": manifest.display_name,
    "version": manifest.package_version,
    "commands": {command.id: command.python_name for command in c.commands},
    "samples": [sample.key for sample in c.sample_data],
    "widgets": [widget.display_name for widget in c.widgets],
    "menus": {key: [item.command for item in items] for key, items in c.menus.items()},
    "reads": [r.command for r in manager.iter_compatible_readers(["a/b.nii.gz"])],
    "writes": [w.command for w in manager.iter_compatible_writers(["labels"])],
    "settings": sorted(c.configurations["segmentation"].properties),
}))
"""


def discover(path: Path | None = None) -> dict[str, object]:
    """What npe2 knows of the plugin in a fresh interpreter, which looks into `path` first."""
    environment = dict(os.environ, **({"PYTHONPATH": str(path)} if path else {}))
    run = subprocess.run(
        [sys.executable, "-c", DISCOVER], cwd=path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, object] = json.loads(run.stdout.splitlines()[-1])
    return found


def check(found: dict[str, object]) -> None:
    assert found["display_name"] == "SparseTok"
    assert found["version"] == napari_sparsetok.__version__
    assert found["widgets"] == ["SCD segmentation"]
    assert found["samples"] == ["mni152", "hippocampus_left", "hippocampus_right", "phantom"]
    assert found["menus"] == {"napari/layers/segment": ["napari-sparsetok.panel"]}
    assert "napari-sparsetok.read" in found["reads"]  # type: ignore[operator]
    assert "napari-sparsetok.write_labels" in found["writes"]  # type: ignore[operator]
    assert found["settings"] == ["cache_gib", "device", "keep_ratio", "look_ahead"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built with nothing but what is installed."""
    if not (CHECKOUT / "pyproject.toml").exists():
        pytest.skip("not a checkout")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", str(out)]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (built,) = out.glob("*.whl")
    return built


def test_an_editable_install_is_found() -> None:
    found = discover()
    check(found)
    assert Path(str(found["package"])) == PACKAGE / "__init__.py"


def test_a_wheel_is_found(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    found = discover(tmp_path)
    check(found)
    assert Path(str(found["package"])).is_relative_to(tmp_path)


def test_a_wheel_holds_what_the_plugin_opens(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    data = [p for pattern in ("*.yaml", "weights/*.safetensors", "weights/*.json") for p in PACKAGE.glob(pattern)]
    expected = {p.relative_to(CHECKOUT).as_posix() for p in [*data, *PACKAGE.rglob("*.py")]}
    samples = {f"napari_sparsetok/sample_data/{p.name}" for p in (CHECKOUT / "sample_data").glob("*.nii.gz")}
    assert samples
    assert expected | samples <= inside
    assert not {name for name in inside if name.startswith(("tests/", "sample_data/", "docs/"))}


def test_the_source_archive_can_be_tested(wheel: Path) -> None:
    (archive,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    assert {"pyproject.toml", "constraints.txt", "Makefile", "LICENSE", "tests/conftest.py"} <= inside


def test_the_manifest_is_valid() -> None:
    npe2 = shutil.which("npe2", path=Path(sys.executable).parent)
    assert npe2
    run = subprocess.run(
        [npe2, "validate", "--imports", str(PACKAGE / "napari.yaml")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_top_level_manifest_is_a_link() -> None:
    link = CHECKOUT / "napari.yaml"
    assert link.is_symlink()
    assert link.resolve() == PACKAGE / "napari.yaml"


def test_no_qt_binding_is_forced_on_anyone() -> None:
    base = [r for r in distribution("napari-sparsetok").requires or [] if "extra ==" not in r]
    assert not [r for r in base if r.lower().startswith(("pyqt", "pyside", "napari["))]


def test_the_readme_is_the_description() -> None:
    readme = CHECKOUT / "README.md"
    described = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("readme")
    assert described == readme.name, 'add `readme = "README.md"` to pyproject.toml'


@pytest.mark.parametrize(("theirs", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_computing_threads_do_not_spin_unless_they_were_told_to(theirs: str | None, found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if theirs is None else {"OMP_WAIT_POLICY": theirs}
    code = "import napari_sparsetok, os; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
