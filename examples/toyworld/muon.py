"""Muon for the matrices of a network, AdamW for all else.

Muon (Jordan et al., 2024) takes the momentum of a matrix's gradient to the nearest orthogonal matrix, by five Newton-Schulz steps, so that every direction moves alike. The update is
scaled by 0.2 sqrt(max(rows, columns)) (Moonlight, arXiv 2502.16982), the size of AdamW's, so that one learning rate serves both.
"""

import torch


def orthogonal(g):
    """g [K, m, n], a stack of matrices, each to its nearest orthogonal one, about."""
    tall = g.shape[1] > g.shape[2]
    x = g.transpose(1, 2) if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.transpose(1, 2) if tall else x


class MuonAdamW:
    def __init__(self, named, lr, momentum=0.95):
        named = [(name, p) for name, p in named if p.requires_grad]

        def is_matrix(name, p):
            """The matrices of a transformer's blocks, and the convolutions of the decoder."""
            return (p.dim() == 2 and ".blocks." in "." + name and min(p.shape) > 1) or (p.dim() == 4 and name.startswith("decoder."))

        matrices = [p for name, p in named if is_matrix(name, p)]
        self.adamw = torch.optim.AdamW([p for name, p in named if not is_matrix(name, p)], lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
        shapes = sorted({p.shape for p in matrices})
        self.stacks = [[p for p in matrices if p.shape == shape] for shape in shapes]
        self.momenta = [torch.zeros(len(stack), *stack[0].flatten(1).shape) for stack in self.stacks]
        self.momentum, self.param_groups = momentum, self.adamw.param_groups

    def zero_grad(self, set_to_none=True):
        self.adamw.zero_grad(set_to_none)
        for stack in self.stacks:
            for p in stack:
                p.grad = None

    @torch.no_grad()
    def step(self):
        self.adamw.step()
        lr = self.param_groups[0]["lr"]
        for stack, momentum in zip(self.stacks, self.momenta):
            g = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in stack]).flatten(2)
            momentum.mul_(self.momentum).add_(g)
            update = orthogonal(g + self.momentum * momentum) * (0.2 * max(g.shape[1:]) ** 0.5 * lr)
            for p, u in zip(stack, update):
                p.sub_(u.view_as(p))

    def state_dict(self):
        return {"adamw": self.adamw.state_dict(), "momenta": self.momenta}

    def load_state_dict(self, state):
        self.adamw.load_state_dict(state["adamw"])
        self.momenta = state["momenta"]
        self.param_groups = self.adamw.param_groups
