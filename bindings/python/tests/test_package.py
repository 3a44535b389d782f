"""What is in the package, and that it covers carat.h."""

import importlib.metadata
import importlib.resources
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import carat

PACKAGE = Path(carat.__file__).parent
FUNCTIONS = sorted(re.findall(r"^function (carat_\w+):", (ROOT / "include/carat.abi").read_text(), re.M))


def sources():
    return "\n".join(path.read_text() for path in PACKAGE.glob("*.py"))


def test_every_function_of_the_header_is_used():
    text = sources()
    made_by_struct = {f"carat_{name}_init" for name in re.findall(r'struct\("(\w+)"\)', text)}
    assert len(FUNCTIONS) > 80
    missing = [f for f in FUNCTIONS if f not in made_by_struct and not re.search(rf"\blib\.{f}\b", text)]
    assert missing == []


def test_every_number_of_the_header_has_a_name():
    numbers = re.findall(r"^#define (CARAT_[A-Z0-9_]+) -?\d+$", (ROOT / "include/carat.h").read_text(), re.M)
    text = sources()
    missing = [n for n in numbers if not re.search(rf"\blib\.{n}\b", text)]
    assert missing == []


def test_every_status_has_a_name_and_a_class():
    from carat._errors import error_of
    from carat._native import ffi, lib

    for status in carat.Status:
        assert ffi.string(lib.carat_status_name(status)).decode() == f"CARAT_{status.name}"
        if status:
            assert error_of(status, ffi.NULL).status is status


def test_the_package_is_typed_and_documented():
    assert (PACKAGE / "py.typed").exists()
    for name in carat.__all__:
        member = getattr(carat, name)
        assert member.__doc__, name
        if inspect.isclass(member):
            for attribute, value in vars(member).items():
                if not attribute.startswith("_") and callable(value):
                    assert value.__doc__, f"{name}.{attribute}"


def test_the_library_exports_the_header_s_functions_and_nothing_else():
    if not shutil.which("nm"):
        pytest.skip("there is no nm")
    (library,) = PACKAGE.glob("_native/*.so")
    out = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    assert sorted(line.split()[2] for line in out.splitlines()) == FUNCTIONS


def test_the_wheel_has_the_licences_and_the_version():
    if "site-packages" not in str(PACKAGE):
        pytest.skip("the package is not installed")
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    assert carat.__version__ == version == importlib.metadata.version("carat")
    files = {Path(f.name).name: f for f in importlib.metadata.files("carat")}
    for name in ("LICENSE-MIT", "LICENSE-APACHE", "NOTICE"):
        assert files[name].read_text() == (ROOT / name).read_text()


def test_the_readme_s_example_runs(real):
    text = (ROOT / "bindings/python/README.md").read_text()
    example = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    assert len(example.strip().splitlines()) <= 10
    code = example.replace("gemma.gguf", real)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    with carat.Model(real) as model, carat.Session(model) as session:
        prompt = model.tokenize("The capital of France is", bos=True)
        text = session.generate(prompt, max_tokens=20, temperature=0).read()
    assert out.stdout.startswith(text)
    assert len(out.stdout.strip()) > len(text) > 20
