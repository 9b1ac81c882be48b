"""How a convolution is computed on this device.

XLA's own convolution is right on a GPU or TPU. On a CPU its weight gradient falls off
the fast path inside a loop (some 18 times slower than PyTorch, see docs/performance.md)
and a convolution over members becomes a grouped one, slower still. There a convolution
is computed as what it is: a matrix product with the patches of the image.
"""

import jax
import jax.numpy as jnp
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")


def convolve(
    lhs,
    rhs,
    window_strides=(1, 1),
    padding="SAME",
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    precision=None,
):
    """Convolution of images [B, H, W, C] with a kernel [h, w, C, F] -> [B, H', W', F].

    The arguments are those of `jax.lax.conv_general_dilated`, so that this is a
    drop-in value for `flax.linen.Conv(conv_general_dilated=...)`; the layout is NHWC.

    >>> convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), (1, 1), "VALID").shape
    (1, 2, 2, 2)
    """
    del dimension_numbers  # Linen hands over NHWC, the only layout here
    plain = feature_group_count == 1 and tuple(lhs_dilation or (1, 1)) == (1, 1)
    if jax.default_backend() == "cpu" and plain:
        return by_patches(lhs, rhs, window_strides, padding, rhs_dilation, precision)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        NHWC,
        feature_group_count,
        precision=precision,
    )


def by_patches(
    images, kernel, strides=(1, 1), padding="SAME", dilation=None, precision=None
):
    """The convolution as one matrix product: patches [..., h*w*C] times [h*w*C, F].

    Source: Chellapilla, Puri & Simard (2006), High performance convolutional neural
    networks for document processing ("unrolling").
    """
    height, width, channels, features = kernel.shape
    dilation = tuple(dilation or (1, 1))
    extent = ((height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], extent, strides, padding)
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    rows, columns = (
        (size - reach) // stride + 1
        for size, reach, stride in zip(padded.shape[1:3], extent, strides, strict=True)
    )
    windows = [
        padded[
            :,
            i : i + (rows - 1) * strides[0] + 1 : strides[0],
            j : j + (columns - 1) * strides[1] + 1 : strides[1],
        ]
        for i in range(0, extent[0], dilation[0])
        for j in range(0, extent[1], dilation[1])
    ]
    patches = jnp.concatenate(windows, axis=-1)  # [B, H', W', h*w*C]
    matrix = kernel.reshape(height * width * channels, features)
    return jnp.matmul(patches, matrix, precision=precision)
