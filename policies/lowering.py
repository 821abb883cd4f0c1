"""How numba compiles kernels and their parts: by its own passes, without work that is done twice.

numba gives every function machine code of its own and optimises it for that, also one that only
kernels call, which take it in and optimise it once more with all around it. Here such a *part* is
typed and simplified, kept so in the cache, taken in, and no more. And what numba compiles inside a
kernel (`np.empty`, slices) it compiles again for every set of options that a kernel may have; here
it is once for all kernels of the same arithmetic.

numba's classes for this are documented for who writes a compiler of his own ("Customizing the
compiler"), those of LLVM's modules and of the cache are its own affair: constraints.txt pins it.
Importing this module imports numba.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite.binding import Linkage, create_new_module_pass_manager, parse_bitcode
from numba.core.caching import CompileResultCacheImpl
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler, DefaultPassBuilder, Flags, compile_result
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import AnnotateTypes, NativeLowering, NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes

_NEEDLESS = {AnnotateTypes, InlineClosureLikes, NopythonRewrites}
"""numba's passes that nothing here needs: nobody reads its listing of types, and kernels have no
functions or comprehensions inside of them, and loops where numpy has expressions of arrays."""


class _Inherited(Flags):
    """What functions that are compiled inside a kernel take over from it. numba asks at every call
    for its hash, which is kept.
    """

    __slots__ = ("_hash",)

    def __init__(self, **options: Any) -> None:
        super().__init__()
        for name, value in options.items():
            setattr(self, name, value)
        self._hash: int = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def copy(self) -> Flags:
        return Flags(self)


@cache
def _inherited(fast: frozenset[str]) -> _Inherited:
    return _Inherited(nrt=True, error_model="numpy", fastmath=set(fast))


class _Options(Flags):
    """A kernel's options; of them numba hands a copy down."""

    __slots__ = ()

    def copy(self) -> Flags:
        fast: Any = self.fastmath
        return _inherited(frozenset(fast.flags))


class _Kernel(JITCodeLibrary):
    """A kernel's code: optimised as a whole, not each of its functions before."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout


class _Part(_Kernel):
    """A part's code: simplified, for kernels to take in, and never machine code. Less (variables
    still in memory) is more: of what is simplified further LLVM makes slower loops later.
    """

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager(
            loop_vectorize=False, slp_vectorize=False, opt=0, cost="cheap"
        )
        passes.run(self._final_module, builder)

    def _finalize_dynamic_globals(self) -> None:
        # A part names the functions that it calls by an address of Python's, which it does not
        # use. Only what is left where nothing needless is keeps it out of the cache.
        module = self._final_module
        self._final_module = module.clone()
        passes = create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_global_dead_code_eliminate_pass()
        passes.run(self._final_module, self._codegen._pass_builder())
        super()._finalize_dynamic_globals()
        self._final_module = module

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.external:
                function.linkage = "linkonce_odr"  # as many kernels may have it
        self._finalized, self._shared_module = True, self._final_module

    def serialize_using_object_code(self) -> Any:
        return self.name, self._final_module.as_bitcode()


class PartCache(CompileResultCacheImpl):
    """What is kept of a part: no machine code."""

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        (name, code), fndesc, environment, signature, _, _, _, reload, inner = payload
        for load in reload:
            load()
        library = _Part(target_context.codegen(), name)
        library._final_module = library._shared_module = parse_bitcode(code)
        library._finalized = True
        return compile_result(
            typing_context=target_context.typing_context,
            target_context=target_context,
            entry_point=object(),
            signature=signature,
            objectmode=False,
            lifted=(),
            fndesc=fndesc,
            library=library,
            environment=environment,
            reload_init=reload,
            referenced_envs=inner,  # of the parts in it: numba keeps none that nobody has
        )


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerPart(NativeLowering):
    _name = "part_lowering"

    def run_pass(self, state: Any) -> bool:
        state.flags.no_compile = True
        super().run_pass(state)
        entry, library, lowered = object(), state.library, state["cr"]
        library.finalize()
        state.targetctx.insert_user_function(entry, lowered.fndesc, [library])
        state["cr"] = lowered._replace(cfunc=entry)
        return True


class KernelCompiler(Compiler):
    """Of what Python calls."""

    library: Any = _Kernel
    lowering: Any = NativeLowering

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.state.flags = _Options(self.state.flags)

    def define_pipelines(self) -> list[PassManager]:
        state = self.state
        state.library = self.library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        own = PassManager("kernel")
        for step, what in DefaultPassBuilder.define_nopython_pipeline(state).passes:
            if step not in _NEEDLESS:
                own.add_pass(self.lowering if step is NativeLowering else step, what)
        own.finalize()
        return [own]


class PartCompiler(KernelCompiler):
    """Of what kernels call."""

    library, lowering = _Part, _LowerPart


def bind(result: Any) -> None:
    """Tell a kernel's code where the parts in it have what they need of Python, as numba does when
    it reads a kernel from the cache.
    """
    for environment in result._find_referenced_environments():
        result.codegen.set_env(environment.env_name, environment)
