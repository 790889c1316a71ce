"""Training examples: mosaics of random fields of one class, drawn and augmented on the training device.

A training image is a 2 x 2 mosaic of fields of one class, as in the paper (Sailem et al., ICCV Workshops 2017); it is
drawn from fields held in memory and never stored.
"""

import torch
from torch import Tensor
from torch.nn import functional

from wscnn.training.recipe import Augmentation


class Bags:
    """Training images drawn from fields of known class.

    Parameters
    ----------
    fields
        Shape (n, C, h, w), on the device and in the type they are kept in.
    labels
        Class of each field, shape (n,).
    crop
        Largest height and width of a training image, in pixels.
    tiles
        Fields along each side of a mosaic: 2, or 1 where each field is an image by itself.
    augmentation
        Ranges of the augmentation.
    seed
        Seed of all random draws.
    share
        Slice of each batch that this DDP rank draws; by default all.

    Attributes
    ----------
    size
        Height and width of a training image, in pixels.
    fields_shown
        Number of fields whose area one training image covers (rounded, at least 1).
    """

    def __init__(
        self,
        fields: Tensor,
        labels: Tensor,
        crop: int,
        tiles: int,
        augmentation: Augmentation,
        seed: int,
        share: slice = slice(None),
    ) -> None:
        self.fields, self.tiles, self.augmentation, self.share = fields, tiles, augmentation, share
        self.by_class = [torch.nonzero(labels.cpu() == label).flatten() for label in range(int(labels.max()) + 1)]
        height, width = fields.shape[-2:]
        self.size = (min(crop, tiles * height), min(crop, tiles * width))
        self.fields_shown = max(1, round(self.size[0] * self.size[1] / (height * width)))
        # Only the part of a field that a rotated and scaled image can reach enters a mosaic.
        reach = 1.0 if tiles == 1 else 0.8
        self.piece = (min(height, round(reach * crop)), min(width, round(reach * crop)))
        # Draws on the host are the same on every device and in every process, for all images of a batch; the noise is
        # drawn on the images' device, from a seed that the host draws.
        self.host = torch.Generator().manual_seed(seed)
        self.device = torch.Generator(fields.device)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Return the images (m, C, y, x), float32, of a batch of `n`, and their classes (m,).

        A batch is balanced over classes (to within one image); all `n` images are made, or the `share` of this process.
        """
        classes = len(self.by_class)
        turn = int(torch.randint(classes, (), generator=self.host))
        labels = (torch.arange(n) + turn) % classes
        chosen = torch.stack([self._choose(self.by_class[label]) for label in labels.tolist()])  # (n, tiles ** 2)
        mosaic = self._mosaic(chosen)
        drawn = [self._affine(n, mosaic), self._levels(n, mosaic), labels[self.share, None]]
        # Sent together: each transfer costs the host of a GPU as much as many operations.
        affine, levels, shown = self._sent(torch.cat(drawn, 1)).split([part.shape[1] for part in drawn], 1)
        return self._vary(self._resample(mosaic, affine), levels), shown[:, 0].long()

    def state(self) -> Tensor:
        """Return the state of the random generators."""
        return self.host.get_state()

    def restore(self, state: Tensor) -> None:
        """Restore a `state`."""
        self.host.set_state(state)

    def _choose(self, members: Tensor) -> Tensor:
        """Return the fields of one mosaic: distinct ones if there are enough."""
        n = self.tiles**2
        order = torch.cat([torch.randperm(len(members), generator=self.host) for _ in range(-(-n // len(members)))])
        return members[order[:n]]

    def _mosaic(self, chosen: Tensor) -> Tensor:
        """Return this share of the mosaics of random pieces of the chosen fields (n, tiles ** 2)."""
        tiles, (height, width) = self.tiles, self.piece
        rows = self._integers(self.fields.shape[-2] - height + 1, len(chosen), tiles**2)
        columns = self._integers(self.fields.shape[-1] - width + 1, len(chosen), tiles**2)
        corners = torch.stack([chosen[self.share], rows, columns], -1).flatten(0, 1).tolist()
        cut = [self.fields[field : field + 1, :, y : y + height, x : x + width] for field, y, x in corners]
        # Starts with an empty piece, as a share may be empty.
        pieces = torch.cat([self.fields[:0, :, :height, :width], *cut])
        # (m, C, tiles, height, tiles, width)
        mosaic = pieces.unflatten(0, (len(rows), tiles, tiles)).permute(0, 3, 1, 4, 2, 5)
        return mosaic.reshape(len(rows), self.fields.shape[1], tiles * height, tiles * width).float()

    def _affine(self, n: int, mosaic: Tensor) -> Tensor:
        """Return the affine sampling matrix of each image (rotation, mirroring, scale, shift), (m, 6).

        Each row holds the factors of x and y and the shift, first for x, then for y.
        """
        settings = self.augmentation
        angle = torch.deg2rad(self._uniform(settings.rotation, n) + 180 * self._integers(2, n))
        # To scale an image up, the sampled positions are closer together.
        zoom = torch.exp(self._uniform(1, n) * torch.log1p(torch.tensor(settings.scale))).reciprocal()
        mirror = 1 - 2 * self._integers(2, n).float()
        cosine, sine = zoom * torch.cos(angle), zoom * torch.sin(angle)
        moved = self._uniform(settings.shift, n, 2).T
        # In grid_sample's units the mosaic is -1..1 from edge to edge.
        matrix = torch.stack([cosine * mirror, -sine, moved[0], sine * mirror, cosine, moved[1]], 1)
        matrix[:, :3] *= 2 / mosaic.shape[-1]
        matrix[:, 3:] *= 2 / mosaic.shape[-2]
        return matrix

    def _levels(self, n: int, mosaic: Tensor) -> Tensor:
        """Return gain and offset of each channel and the deviation of the noise, of each image: (m, 2 C + 1)."""
        settings, channels = self.augmentation, mosaic.shape[1]
        gain = torch.exp(self._uniform(1, n, channels) * torch.log1p(torch.tensor(settings.gain)))
        offset = self._uniform(settings.offset, n, channels)
        deviation = torch.zeros(len(gain), 1)
        if settings.noise > 0:
            deviation = self._uniform(settings.noise, n, 1).abs()
            seeds = torch.randint(2**62, (n,), generator=self.host)[self.share]
            self.device.manual_seed(int(seeds[0]) if len(seeds) else 0)
        return torch.cat([gain, offset, deviation], 1)

    def _resample(self, mosaic: Tensor, affine: Tensor) -> Tensor:
        """Return mosaics transformed by `affine` in one resampling, cropped to `size`."""
        xx, xy, x0, yx, yy, y0 = affine.T[:, :, None, None]  # each (m, 1, 1)
        height, width = self.size
        y = (torch.arange(height, device=mosaic.device) - (height - 1) / 2)[None, :, None]
        x = (torch.arange(width, device=mosaic.device) - (width - 1) / 2)[None, None, :]
        grid = torch.empty((len(mosaic), height, width, 2), device=mosaic.device)
        torch.add(xx * x + x0, xy * y, out=grid[..., 0])
        torch.add(yx * x + y0, yy * y, out=grid[..., 1])
        return functional.grid_sample(mosaic, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _vary(self, images: Tensor, levels: Tensor) -> Tensor:
        """Return images with the gain, offset and noise in `levels`."""
        gain, offset, deviation = levels[:, :, None, None].split([images.shape[1], images.shape[1], 1], 1)
        images = images * gain + offset
        if self.augmentation.noise > 0:
            images.addcmul_(deviation, torch.randn(images.shape, generator=self.device, device=images.device))
        return images

    def _sent(self, numbers: Tensor) -> Tensor:
        """Return a tensor of the host on the device, without waiting for the transfer, so that the host draws while a
        GPU computes."""
        if self.fields.is_cuda:
            numbers = numbers.pin_memory()
        return numbers.to(self.fields.device, non_blocking=True)

    def _uniform(self, limit: float, n: int, *shape: int) -> Tensor:
        """Return this share of numbers (n, ...) drawn uniformly from -limit to limit."""
        return ((torch.rand((n, *shape), generator=self.host) * 2 - 1) * limit)[self.share]

    def _integers(self, below: int, n: int, *shape: int) -> Tensor:
        """Return this share of whole numbers (n, ...) drawn uniformly from 0 to below - 1."""
        return torch.randint(below, (n, *shape), generator=self.host)[self.share]
