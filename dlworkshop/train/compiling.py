"""Compiler options that XLA's own convolutions need on a CPU."""

import functools

import jax

# XLA's newer convolution for CPUs (YNNPACK) is slower than the one of Eigen: a light
# residual network of 48 channels took 1.4 s instead of 0.7 s for an update of 256
# images, and VGG16 processed 10.2 images/s instead of 13.0. Its matrix products are
# faster, so programs without XLA's convolutions keep them all.
EIGEN: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}


@functools.cache
def convolution_options() -> dict[str, str | bool]:
    """Options for programs with XLA's convolutions on a CPU.

    Empty if this XLA does not know them.

    >>> double = jax.jit(lambda x: 2 * x, compiler_options=convolution_options())
    >>> float(double(1.5))
    3.0
    """
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=EIGEN)
    except jax.errors.JaxRuntimeError:
        return {}
    return EIGEN
