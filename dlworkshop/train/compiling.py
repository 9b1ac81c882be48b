"""Compilation of a lowered program, with the options that its convolutions need."""

import jax
from jax.stages import Compiled, Lowered

# XLA's newer convolution for CPUs (YNNPACK) is slower than the one of Eigen: a light
# residual network of 48 channels took 1.4 s instead of 0.7 s for an update of 256
# images, and VGG16 answered 10.2 images/s instead of 13.0. Its matrix products are
# faster, so programs without XLA's convolutions keep them all.
EIGEN_CONVOLUTIONS: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}


def compile_lowered(lowered: Lowered, *, convolves_on_cpu: bool) -> Compiled:
    """Compile a program.

    Args:
        lowered: the program.
        convolves_on_cpu: whether XLA's own convolutions are in it, for a CPU.

    >>> lowered = jax.jit(lambda x: 2 * x).lower(1.5)
    >>> float(compile_lowered(lowered, convolves_on_cpu=True)(1.5))
    3.0
    """
    if convolves_on_cpu:
        try:
            return lowered.compile(compiler_options=EIGEN_CONVOLUTIONS)
        except jax.errors.JaxRuntimeError:  # this XLA does not support the option
            pass
    return lowered.compile()
