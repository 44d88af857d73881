"""Compiles `_instances.c` where there is a compiler; without one, Catalysis is pure Python and answers the same."""

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "catalysis.engine.alchemy._instances"


class Compile(BuildHookInterface):
    """What hatchling calls before it builds a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this Python and machine; another stays pure."""
        if self.target_name != "wheel" or os.environ.get("CATALYSIS_PURE_PYTHON"):
            return
        try:
            built = self._compiled()
        except Exception as why:  # a compiler that is not there, or headers, or that refuses
            self.app.display_warning(f"Catalysis is installed without its compiled part: {why}")
            return
        build_data["artifacts"].append(f"/{built}")
        build_data.update(pure_python=False, infer_tag=True)

    def _compiled(self) -> str:
        from setuptools import Distribution, Extension

        source = f"src/{MODULE.replace('.', '/')}.c"
        distribution = Distribution(
            {"name": "catalysis", "package_dir": {"": "src"}, "ext_modules": [Extension(MODULE, [source])]}
        )
        build = distribution.get_command_obj("build_ext")
        build.inplace, build.force, build.build_temp = True, True, "build/compiled"
        build.ensure_finalized()
        build.run()
        return os.path.relpath(build.get_ext_fullpath(MODULE), self.root)
