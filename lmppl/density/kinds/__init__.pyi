from .choice import BoundChoice as BoundChoice
from .choice import drawn_options as drawn_options
from .expression import BoundExpression as BoundExpression
from .table import BINDERS as BINDERS
from .table import BoundFactor as BoundFactor
from .table import BoundLatent as BoundLatent
from .table import BoundScoredText as BoundScoredText
from .text import BoundText as BoundText
