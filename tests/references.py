"""Slow, obvious NumPy versions of what the library computes, in float64.

An independent road for the other tests: no JAX, no automatic differentiation. Every
backward pass is the chain rule written out, every optimizer is its paper's formula.
Parameters are nested dicts in Flax's layout, `{"Dense_0": {"kernel", "bias"}}`; `d_x`
is the derivative of the loss with respect to `x`, and has its shape.
"""

from collections import namedtuple
from functools import partial

import numpy as np

# A layer without parameters: `forward(x) -> y`, `backward(x, d_y) -> d_x`.
Layer = namedtuple("Layer", ["forward", "backward"])

# The slope of relu at its kink is 0, as in `jax.nn.relu`.
RELU = Layer(lambda x: np.maximum(x, 0.0), lambda x, d_y: np.where(x > 0, d_y, 0.0))
TANH = Layer(np.tanh, lambda x, d_y: d_y * (1 - np.tanh(x) ** 2))


def windows_along(size, width, stride, padding, dilation):
    """Zeros (before, after) one axis, and each output's slice of the padded axis.

    XLA's convention: SAME has ceil(size / stride) outputs and an odd zero goes after;
    VALID has an output wherever the whole kernel fits.
    """
    extent = (width - 1) * dilation + 1  # what a dilated kernel covers
    if padding == "SAME":
        num_outputs = -(-size // stride)
        total = max((num_outputs - 1) * stride + extent - size, 0)
    elif padding == "VALID":
        num_outputs, total = (size - extent) // stride + 1, 0
    else:
        raise ValueError(f"padding must be 'SAME' or 'VALID', got {padding!r}")
    starts = range(0, num_outputs * stride, stride)
    slices = [slice(start, start + extent, dilation) for start in starts]
    return (total // 2, total - total // 2), slices


def pad(x, kernel, strides, padding, dilation):
    """x with its zeros, where x[0, 0] is in it, all windows' slices down and right."""
    (_, H, W, _), (h, w, _, _) = x.shape, kernel.shape
    pad_h, all_rows = windows_along(H, h, strides[0], padding, dilation[0])
    pad_w, all_columns = windows_along(W, w, strides[1], padding, dilation[1])
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), pad_h, pad_w, (0, 0)))
    return padded, (pad_h[0], pad_w[0]), all_rows, all_columns


def conv2d(x, kernel, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    """Cross-correlation, one output pixel at a time; `dilation` is the kernel's.

    y[b, i, j, f] = sum_pqc padded[b, i s + p d, j s + q d, c] kernel[p, q, c, f]

    [B, H, W, C], [h, w, C, F] -> [B, H', W', F].
    Source: Goodfellow et al. (2016), Deep Learning, eq. 9.6.
    """
    padded, _, all_rows, all_columns = pad(x, kernel, strides, padding, dilation)
    y = np.zeros((len(x), len(all_rows), len(all_columns), kernel.shape[3]))
    for i, rows in enumerate(all_rows):
        for j, columns in enumerate(all_columns):
            window = padded[:, rows, columns]  # [B, h, w, C]
            y[:, i, j] = np.einsum("bpqc,pqcf->bf", window, kernel)
    return y


def conv2d_backward(x, kernel, d_y, *, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    """Returns d_x [B, H, W, C], d_kernel [h, w, C, F]."""
    padded, corner, all_rows, all_columns = pad(x, kernel, strides, padding, dilation)
    d_padded, d_kernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, rows in enumerate(all_rows):
        for j, columns in enumerate(all_columns):
            window, d_pixel = padded[:, rows, columns], d_y[:, i, j]  # [B, F]
            d_kernel += np.einsum("bpqc,bf->pqcf", window, d_pixel)
            d_padded[:, rows, columns] += np.einsum("bf,pqcf->bpqc", d_pixel, kernel)
    (top, left), (_, H, W, _) = corner, x.shape
    return d_padded[:, top : top + H, left : left + W], d_kernel


def pool(x, reduce):
    """2x2: [B, H, W, C] -> [B, H // 2, W // 2, C]; an odd last row is left out."""
    y = np.zeros((len(x), x.shape[1] // 2, x.shape[2] // 2, x.shape[3]))
    for i, j in np.ndindex(y.shape[1:3]):
        y[:, i, j] = reduce(x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2], axis=(1, 2))
    return y


def pool_backward(x, d_y, share):
    """`share`: of a window [B, 2, 2, C], what each pixel gets of the gradient."""
    d_x = np.zeros(x.shape)
    for i, j in np.ndindex(d_y.shape[1:3]):
        window = np.s_[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        d_x[window] = share(x[window]) * d_y[:, i : i + 1, j : j + 1]
    return d_x


def share_of_max(window):
    """Pixels that tie for the maximum share its gradient equally."""
    is_max = window == window.max(axis=(1, 2), keepdims=True)  # [B, 2, 2, C]
    return is_max / is_max.sum(axis=(1, 2), keepdims=True)


def pooling_layer(reduce, share):
    return Layer(partial(pool, reduce=reduce), partial(pool_backward, share=share))


AVG_POOL = pooling_layer(np.mean, share=lambda window: 1 / 4)
MAX_POOL = pooling_layer(np.max, share=share_of_max)


def cross_entropy(logits, labels, label_smoothing=0.0):
    """Mean over the batch, in nats, and its gradient: loss [], d_logits [B, K].

    target = (1 - a) onehot + a / K; loss = -mean_b sum_k target log softmax(logits).
    Source: Bishop (2006), PRML, eqs. 4.108-4.109; Szegedy et al. (2016), Rethinking
    the Inception Architecture, section 7.
    """
    B, K = logits.shape
    onehot = np.eye(K)[labels]  # [B, K]
    target = (1 - label_smoothing) * onehot + label_smoothing / K
    shifted = logits - logits.max(axis=1, keepdims=True)  # exp must not overflow
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -(target * log_probs).sum() / B, (np.exp(log_probs) - target) / B


def names_of(params, kind):
    """["Dense_0", "Dense_1", ...], as many as `params` has."""
    return [f"{kind}_{i}" for i in range(len(params)) if f"{kind}_{i}" in params]


def mlp(params, x, activation=RELU):
    """Every Dense in turn: [B, ...] -> logits [B, K], and what `backward` needs."""
    saved = []
    layer_input = x.reshape(len(x), -1)  # C order: [H, W, C]
    for name in names_of(params, "Dense"):
        output = layer_input @ params[name]["kernel"] + params[name]["bias"]
        saved.append((name, layer_input, output))
        layer_input = activation.forward(output)  # not used after the last layer
    return output, saved


def mlp_backward(params, saved, d_logits, activation=RELU):
    """Returns d_x [B, D], and the gradients of every Dense."""
    grads, d_output = {}, d_logits
    for name, layer_input, output in reversed(saved):
        if grads:  # there is no activation after the last layer
            d_output = activation.backward(output, d_output)
        grads[name] = {"kernel": layer_input.T @ d_output, "bias": d_output.sum(axis=0)}
        d_output = d_output @ params[name]["kernel"].T
    return d_output, grads


def mlp_loss_and_grads(params, x, labels, *, label_smoothing=0.0, activation=RELU):
    """[B, ...], [B] -> loss in nats, gradients nested as `params`."""
    logits, saved = mlp(params, x, activation)
    loss, d_logits = cross_entropy(logits, labels, label_smoothing)
    return loss, mlp_backward(params, saved, d_logits, activation)[1]


def cnn(params, x, activation=RELU, pooling=AVG_POOL):
    """[conv SAME + bias -> activation -> pool] per Conv, then flatten and an MLP.

    [B, H, W, C] -> logits [B, K], and what the backward pass needs.
    """
    blocks = []
    for name in names_of(params, "Conv"):
        before = conv2d(x, params[name]["kernel"]) + params[name]["bias"]
        after = activation.forward(before)
        blocks.append((name, x, before, after))
        x = pooling.forward(after)
    logits, saved = mlp(params, x, activation)
    return logits, (blocks, x.shape, saved)


def cnn_loss_and_grads(
    params, x, labels, *, label_smoothing=0.0, activation=RELU, pooling=AVG_POOL
):
    """[B, H, W, C], [B] -> loss in nats, gradients nested as `params`."""
    logits, (blocks, shape, saved) = cnn(params, x, activation, pooling)
    loss, d_logits = cross_entropy(logits, labels, label_smoothing)
    d_flat, grads = mlp_backward(params, saved, d_logits, activation)
    d_output = d_flat.reshape(shape)
    for name, block_input, before, after in reversed(blocks):
        d_before = activation.backward(before, pooling.backward(after, d_output))
        kernel = params[name]["kernel"]
        d_output, d_kernel = conv2d_backward(block_input, kernel, d_before)
        grads[name] = {"kernel": d_kernel, "bias": d_before.sum(axis=(0, 1, 2))}
    return loss, grads


def on_dicts(rule, first_memory):
    """From `rule(p, g, memory, lr, **hparams) -> p, memory` for one array to
    `optimizer(params, grads, state, lr, **hparams) -> params, state` for dicts of them,
    where the first `state` is {}.
    """

    def optimizer(params, grads, state, lr, **hparams):
        new_params, new_state = {}, {}
        for name, p in params.items():
            result = rule(p, grads[name], state.get(name, first_memory), lr, **hparams)
            new_params[name], new_state[name] = result
        return new_params, new_state

    return optimizer


def decay_of(p, weight_decay):
    return weight_decay * p if p.ndim >= 2 else 0.0  # biases do not decay


def momentum_rule(p, g, m, lr, *, momentum=0.9, weight_decay=0.0):
    """m <- g + wd p + mu m; p <- p - lr m.

    Source: Sutskever et al. (2013), eqs. 1-2, with lr outside m as in `optax.trace`.
    """
    m = g + decay_of(p, weight_decay) + momentum * m
    return p - lr * m, m


def nesterov_rule(p, g, m, lr, *, momentum=0.9, weight_decay=0.0):
    """m <- g + wd p + mu m; p <- p - lr (g + wd p + mu m).

    Source: Sutskever et al. (2013), eqs. 3-4, in the variables of
    `optax.trace(nesterov=True)`: p is where the gradient is taken.
    """
    decayed = g + decay_of(p, weight_decay)
    m = decayed + momentum * m
    return p - lr * (decayed + momentum * m), m


def adamw_rule(p, g, memory, lr, *, weight_decay=1e-4, b1=0.9, b2=0.999, eps=1e-8):
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; at step t = 1, 2, ...
    p <- p - lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + wd p).

    Source: Kingma & Ba (2015), algorithm 1; Loshchilov & Hutter (2019), algorithm 2,
    with lr also on the decay as in `optax.adamw`.
    """
    t, m, v = memory
    t, m, v = t + 1, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    direction = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
    return p - lr * (direction + decay_of(p, weight_decay)), (t, m, v)


sgd_momentum = on_dicts(momentum_rule, first_memory=0.0)
sgd_nesterov = on_dicts(nesterov_rule, first_memory=0.0)
sgd = partial(sgd_momentum, momentum=0.0)  # p <- p - lr (g + wd p)
adamw = on_dicts(adamw_rule, first_memory=(0, 0.0, 0.0))
adam = partial(adamw, weight_decay=0.0)


def clip_by_global_norm(grads, clip_norm):
    """g <- g min(1, c / |g|), |g| over all arrays. Source: Pascanu et al. (2013)."""
    norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
    scale = clip_norm / norm if norm > clip_norm else 1.0  # no 0 / 0
    return {name: g * scale for name, g in grads.items()}


def warmup_cosine(step, num_steps, num_warmup_steps):
    """(s + 1) / w for s < w, else (1 + cos(pi (s - w) / (S - w))) / 2.

    Source: Goyal et al. (2017), section 2.2; Loshchilov & Hutter (2017), eq. 5.
    """
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    progress = (step - num_warmup_steps) / (num_steps - num_warmup_steps)
    return 0.5 * (1 + np.cos(np.pi * progress))


def flat_dict(nested):
    """{"Dense_0": {"kernel": x}} -> {("Dense_0", "kernel"): x}, in float64."""
    return {
        (layer, name): np.asarray(x, np.float64)
        for layer, arrays in nested.items()
        for name, x in arrays.items()
    }


def nested_dict(flat):
    """The inverse of `flat_dict`."""
    return {
        layer: {name: x for (owner, name), x in flat.items() if owner == layer}
        for layer, _ in flat
    }


def train(
    loss_and_grads,
    params,
    images,
    labels,
    order,
    *,
    learning_rate,
    optimizer=sgd,
    hparams=None,
    multiplier=lambda step: 1.0,
    clip_norm=np.inf,
    **model_options,
):
    """Step s: gradient on batch order[s] -> clip -> optimizer at lr multiplier(s).

    Args:
        loss_and_grads: of a model, as above; it takes the `model_options`.
        params: nested dict; never written to.
        images, labels: [N, H, W, C] uint8, [N] int.
        order: [S, B] int, rows of `images`.
        optimizer, hparams: a function on dicts of arrays and its keyword arguments.
        multiplier: of the learning rate, a function of the step 0, 1, ...
        clip_norm: largest global norm of the gradient, before any weight decay.

    Returns:
        Final params, nested; a list of S losses in nats, each before its update.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    x = images / 255.0  # [N, H, W, C] in [0, 1]
    flat, state, losses = flat_dict(params), {}, []
    for step, rows in enumerate(np.asarray(order)):
        batch = x[rows], labels[rows]
        loss, grads = loss_and_grads(nested_dict(flat), *batch, **model_options)
        grads = clip_by_global_norm(flat_dict(grads), clip_norm)
        lr = learning_rate * multiplier(step)
        flat, state = optimizer(flat, grads, state, lr, **(hparams or {}))
        losses.append(float(loss))
    return nested_dict(flat), losses


train_mlp = partial(train, mlp_loss_and_grads)
train_cnn = partial(train, cnn_loss_and_grads)
