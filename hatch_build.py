"""Compiles `_instances.c` where there is a compiler; without one, Catalysis is pure Python and answers the same."""

import os
import shutil
import sysconfig
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "catalysis.engine.alchemy._instances"
PLACE = MODULE.replace(".", "/")


class Compile(BuildHookInterface):
    """What hatchling calls around the building of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile for this Python and machine, and mark the wheel so; it stays pure if that fails."""
        self.folder = mkdtemp()
        if self.target_name != "wheel":
            return
        beside = Path(self.root, "src", PLACE + sysconfig.get_config_var("EXT_SUFFIX"))
        if version == "editable":
            beside.unlink(missing_ok=True)  # of an earlier source, maybe
        if os.environ.get("CATALYSIS_PURE_PYTHON", "0") not in ("", "0"):
            return
        try:
            built = self._compiled()
        except Exception as why:  # a compiler that is not there, or headers, or that refuses
            self.app.display_warning(f"Catalysis is installed without its compiled part: {why}")
            return
        build_data.update(pure_python=False, infer_tag=True)
        if version == "editable":
            shutil.copy2(built, beside)
        else:
            build_data["force_include"][built] = f"{Path(PLACE).parent}/{beside.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _compiled(self) -> str:
        from setuptools import Distribution, Extension

        source = str(Path(self.root, "src", f"{PLACE}.c"))
        arguments = ["-g0"] if os.name == "posix" else []
        extension = Extension(MODULE, [source], extra_compile_args=arguments)
        distribution = Distribution({"name": "catalysis", "ext_modules": [extension]})
        build = distribution.get_command_obj("build_ext")
        build.build_lib, build.build_temp = self.folder, f"{self.folder}/objects"
        build.ensure_finalized()
        build.run()
        return build.get_ext_fullpath(MODULE)
