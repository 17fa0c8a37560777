from . import branches as branches
from . import chat as chat
from . import learning as learning
from . import models as models
from . import program as program
from . import run as run
from . import servers as servers
from .run import no_value_of as no_value_of
