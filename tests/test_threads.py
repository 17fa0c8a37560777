"""Threads sleep while they wait, unless the user has said otherwise; torch is not loaded before that is set."""

import os
import subprocess
import sys

import pytest

from lmppl.threads import WAITING, wait_passively


def test_threads_wait_asleep_by_default():
    environment = {"PATH": "/bin"}
    wait_passively(environment)
    assert environment == {"PATH": "/bin", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}


@pytest.mark.parametrize("name", WAITING)
def test_what_the_user_has_set_is_kept(name):
    environment = {name: "1000"}
    wait_passively(environment)
    assert environment == {name: "1000"}


@pytest.mark.parametrize(
    "module",
    ["lmppl.density.target", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lmppl", "lmppl.cli"))],
)
def test_it_is_set_before_torch_is_loaded(module):
    """Where torch is being imported, the setting is there already."""
    program = f"""
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
            sys.exit(0)
sys.meta_path.insert(0, Watch())
import {module}
import torch
"""
    bare = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", program], env=bare, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["PASSIVE", "1000"]
