"""DAGMM: the paper's baseline, an autoencoder and a Gaussian mixture trained together, without control of the scale."""

from torch import Tensor

from training.draws import Draws
from training.methods.base import Losses
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.residuals import compare


class DAGMM(MixtureAutoencoder):
    r"""Creates a Deep Autoencoding Gaussian Mixture Model.

    .. math:: L = \|x - \hat{x}\|^2 + \lambda_1 (-\log P_z(z)) + \lambda_2 \sum_k \sum_i \hat\Sigma_{kii}^{-1}

    The last term keeps variances from shrinking to nothing, which would make the second as small as one likes.
    :math:`\lambda_1` and :math:`\lambda_2` are the settings' lambda1 and lambda2; h, the noise and the place of the
    rate are RaDOGAGA's alone.

    References:
        | Deep Autoencoding Gaussian Mixture Model (Zong et al., 2018), Eq. (8)
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (20)
    """

    @property
    def rate_weight(self) -> float:
        return self.settings.lambda1

    def losses(self, x: Tensor, draws: Draws) -> Losses:
        """Returns the three terms of Eq. (20) for a batch of shape (..., N, M)."""
        x = self.scaler(x)
        z = self.encoder(x)
        x_hat = self.decoder(z)

        distortion, *residuals = compare(x, x_hat)
        y = self.density_features(z, *residuals)
        rate, covariances = self.batch_rate(y, draws)
        penalty = covariances.diagonal(dim1=-2, dim2=-1).reciprocal().sum(dim=(-2, -1))

        return {
            "distortion": distortion,
            "rate": self.rate_weight * rate,
            "penalty": self.settings.lambda2 * penalty[..., None].to(rate.dtype).expand_as(rate),
        }
