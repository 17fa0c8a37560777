from .findings import rise as rise
from .maximise import Fit as Fit
from .rounds import POLICY as POLICY
from .rounds import PUBLISHED as PUBLISHED
from .rounds import Job as Job
from .rounds import expectation_maximisation as expectation_maximisation
from .rounds import learned_adapters as learned_adapters
from .rounds import require_learnable as require_learnable
