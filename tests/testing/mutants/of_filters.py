"""Weight standardization, broken."""

from norm_references import Weights

from mutants.table import mutant


@mutant("filters-have-no-mean", "filters-have-no-scale")
class FiltersAsTheyAre(Weights):
    def standardized(self, filters):
        return filters


@mutant("filters-have-no-mean")
class FiltersOnlyDivided(Weights):
    def standardized(self, filters):
        return filters * (filters.var(1, correction=0, keepdim=True) + self.eps).rsqrt()


@mutant("filters-have-no-mean")
class FiltersCenteredTogether(Weights):
    def standardized(self, filters):
        return (filters - filters.mean()) * (filters.var(1, correction=0, keepdim=True) + self.eps).rsqrt()


@mutant("filters-have-no-mean", gradient_only=True)
class TakesTheMeanOfAFilterForAConstant(Weights):
    def standardized(self, filters):
        centered = filters - filters.mean(1, keepdim=True).detach()
        return centered * (filters.var(1, correction=0, keepdim=True) + self.eps).rsqrt()


@mutant("filters-have-no-scale")
class FiltersOnlyCentered(Weights):
    def standardized(self, filters):
        return filters - filters.mean(1, keepdim=True)


@mutant("filters-have-no-scale")
class FiltersDividedByTheVariance(Weights):
    def standardized(self, filters):
        return (filters - filters.mean(1, keepdim=True)) / (filters.var(1, correction=0, keepdim=True) + self.eps)


@mutant("filters-have-no-scale", gradient_only=True)
class TakesTheDeviationOfAFilterForAConstant(Weights):
    def standardized(self, filters):
        inverse = (filters.var(1, correction=0, keepdim=True) + self.eps).rsqrt().detach()
        return (filters - filters.mean(1, keepdim=True)) * inverse
