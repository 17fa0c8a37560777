from . import divergence as divergence
from . import diversity as diversity
from . import labels as labels
from . import overlap as overlap
