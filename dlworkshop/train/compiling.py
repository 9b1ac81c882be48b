"""Options of the compiler, for all programs of training and prediction."""

import functools

import jax

# Of XLA's library for CPUs (YNNPACK), only matrix products. A maximum that it computes
# with other operations takes no notice of NaN: relu and max pooling turn it into a
# number. Its convolution is slower than that of Eigen: a light residual network of 48
# channels took 1.4 s instead of 0.7 s for an update of 256 images, and VGG16 processed
# 10.2 images/s instead of 13.0.
ON_CPU: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}


def compiler_options(platform: str) -> dict[str, str | bool]:
    """The compiler options of a platform: "cpu", "gpu" or "tpu".

    Empty if this XLA does not know them.

    >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options("cpu"))
    >>> float(double(1.5))
    3.0
    """
    return ON_CPU if platform == "cpu" and _are_known() else {}


@functools.cache
def _are_known() -> bool:
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=ON_CPU)
    except jax.errors.JaxRuntimeError:
        return False
    return True
