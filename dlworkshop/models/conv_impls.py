"""Implementations of convolution, equal up to rounding.

XLA's own convolution is used on a CPU (see `convolution.for_cpu`), on a TPU,
and for one member on a GPU. Over members it becomes a grouped convolution, which is
slow. Alternatives are one matrix product with the patches of the image, or one product
for each shift of the kernel. The fastest one depends on device, version, shapes and
members, so `train/autotune.py` measures it. Winograd's transforms need fewer products
for wide layers.
"""

import jax
import jax.numpy as jnp
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")
# Winograd's transforms cost O(C + F) and save O(C F) products, so they are used from
# this value of C F / (C + F) on: with 128 and 128 channels (64) they took 1.2 times as
# long as XLA's convolution, with 256 and 256 (128) 0.8 times, with 512 and 512 half.
WIDE = 100


def by_lax(image, kernel, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    """XLA's convolution of an image [H, W, C] with a kernel [h, w, C, F].

    All implementations have the same arguments and result.

    Args:
        image: [H, W, C] real.
        kernel: [h, w, C, F] of the same dtype, not flipped (a cross-correlation).
        strides: rows and columns between outputs.
        padding: "SAME", "VALID" or ((top, bottom), (left, right)) zeros.
        dilation: rows and columns between entries of the kernel.

    >>> by_lax(jnp.ones((4, 4, 1)), jnp.ones((3, 3, 1, 2)), padding="VALID").shape
    (2, 2, 2)
    """
    return lax.conv_general_dilated(
        image[None], kernel, strides, padding, None, dilation, NHWC
    )[0]


def by_patches(image, kernel, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    """One matrix product: the patches [H', W', h*w*C] times the kernel [h*w*C, F].

    Source: Chellapilla, Puri & Simard (2006), High performance convolutional neural
    networks for document processing ("unrolling").
    """
    windows = _windows(image, kernel, strides, padding, dilation)
    patches = jnp.concatenate(windows, axis=-1)  # [H', W', h*w*C]
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def by_blocks(image, kernel, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    """Patches of blocks of pixels of the stride's size; plain patches without strides.

    With the s*s pixels of a block as channels, a kernel with strides becomes a smaller
    one without strides, whose windows are contiguous in memory: 6x6 with strides of 2
    becomes 3x3. Sizes are padded with zeros to multiples of the strides.

    Source: Shi et al. (2016), Real-time single image and video super-resolution using
    an efficient sub-pixel convolutional neural network, section 2.2 (the inverse).
    """
    if strides == (1, 1) or dilation != (1, 1):
        return by_patches(image, kernel, strides, padding, dilation)
    pads = _pads(image, kernel, strides, padding, dilation)
    features = kernel.shape[-1]
    around, more, blocks, entries = [], [], [], []
    for size, reach, stride, (low, high) in zip(
        image.shape[:2], kernel.shape[:2], strides, pads, strict=True
    ):
        outputs = (size + low + high - reach) // stride + 1
        of_kernel = -(-reach // stride)
        wanted = (outputs - 1 + of_kernel) * stride  # rows that the windows cover
        around.append((low, wanted - size - low, 0))
        more.append((0, of_kernel * stride - reach))
        blocks.append(outputs - 1 + of_kernel)
        entries.append(of_kernel)

    def as_channels(array, blocks):  # [H, W, ...] -> [H / s, W / s, s, s, ...]
        rows, columns = blocks
        split = array.reshape(rows, strides[0], columns, strides[1], *array.shape[2:])
        return split.swapaxes(1, 2)

    padded = lax.pad(image, jnp.zeros((), image.dtype), (*around, (0, 0, 0)))
    deep = as_channels(padded, blocks).reshape(*blocks, -1)
    whole = jnp.pad(kernel, (*more, (0, 0), (0, 0)))
    weights = as_channels(whole, entries).reshape(*entries, -1, features)
    return by_patches(deep, weights, (1, 1), "VALID")


def by_shifts(image, kernel, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    """The sum of one matrix product for each of the h*w shifts of the image."""
    windows = _windows(image, kernel, strides, padding, dilation)
    weights = kernel.reshape(-1, *kernel.shape[2:])  # [h*w, C, F]
    return sum(w @ weight for w, weight in zip(windows, weights, strict=True))


def by_winograd(image, kernel, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    """Winograd's F(2x2, 3x3) for wide 3x3 layers; XLA's convolution for others.

    Y = A^T [(G g G^T) * (B^T d B)] A for windows d [4, 4] that overlap by two.

    Source: Lavin & Gray (2016), Fast algorithms for convolutional neural networks,
    section 4, F(2x2, 3x3).
    """
    channels, features = kernel.shape[2:]
    wide = channels * features >= WIDE * (channels + features)
    if (
        kernel.shape[:2] != (3, 3)
        or strides != (1, 1)
        or dilation != (1, 1)
        or not wide
    ):
        return by_lax(image, kernel, strides, padding, dilation)
    pads = _pads(image, kernel, strides, padding, dilation)
    height, width = (
        size + sum(pad) - 2 for size, pad in zip(image.shape[:2], pads, strict=True)
    )
    rows, columns = -(-height // 2), -(-width // 2)  # windows
    odd = (2 * rows - height, 2 * columns - width)
    around = [(low, high + more) for (low, high), more in zip(pads, odd, strict=True)]
    x = jnp.pad(image, (*around, (0, 0)))

    def of_window(d):  # B^T
        return d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]

    def of_kernel(g):  # G
        return g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]

    def of_products(m):  # A^T
        return m[0] + m[1] + m[2], m[1] - m[2] - m[3]

    kernels = [of_kernel(row) for row in of_kernel(kernel)]  # 4 x 4 of [C, F]
    bands = of_window([x[i : i + 2 * rows - 1 : 2] for i in range(4)])
    windows = [
        of_window([band[:, j : j + 2 * columns - 1 : 2] for j in range(4)])
        for band in bands
    ]  # 4 x 4 of [rows, columns, C]
    products = [
        of_products([d @ g for d, g in zip(*pair, strict=True)])
        for pair in zip(windows, kernels, strict=True)
    ]  # 4 x 2 of [rows, columns, F]
    outputs = [of_products(column) for column in zip(*products, strict=True)]
    left, right = (jnp.stack(pair, axis=1) for pair in outputs)  # [rows, 2, columns, F]
    whole = jnp.stack([left, right], axis=3)  # [rows, 2, columns, 2, F]
    return whole.reshape(2 * rows, 2 * columns, features)[:height, :width]


def _extent(kernel, dilation) -> tuple[int, int]:
    """Rows and columns that the dilated kernel covers."""
    height, width = kernel.shape[:2]
    return (height - 1) * dilation[0] + 1, (width - 1) * dilation[1] + 1


def _pads(image, kernel, strides, padding, dilation):
    """((top, bottom), (left, right)) of zeros; padding may be "SAME" or "VALID"."""
    if not isinstance(padding, str):
        return padding
    extent = _extent(kernel, dilation)
    return lax.padtype_to_pads(image.shape[:2], extent, strides, padding)


def _windows(image, kernel, strides, padding, dilation) -> list[jax.Array]:
    """The input of each kernel entry: h*w images [H', W', C]."""
    extent = _extent(kernel, dilation)
    padding = _pads(image, kernel, strides, padding, dilation)
    padded = jnp.pad(image, (*padding, (0, 0)))
    rows, columns = (
        (size - reach) // stride + 1
        for size, reach, stride in zip(padded.shape[:2], extent, strides, strict=True)
    )
    return [
        padded[
            i : i + (rows - 1) * strides[0] + 1 : strides[0],
            j : j + (columns - 1) * strides[1] + 1 : strides[1],
        ]
        for i in range(0, extent[0], dilation[0])
        for j in range(0, extent[1], dilation[1])
    ]


CONV_IMPLS = {
    "lax": by_lax,
    "patches": by_patches,
    "blocks": by_blocks,
    "shifts": by_shifts,
    "winograd": by_winograd,
}
