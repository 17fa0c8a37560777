from .bounds import PROPOSER as PROPOSER
from .bounds import Bounds as Bounds
from .bounds import Estimate as Estimate
from .bounds import certify as certify
from .sbc import Calibration as Calibration
from .sbc import calibrate as calibrate
from .simulate import MOST_ATTEMPTS as MOST_ATTEMPTS
from .simulate import require_simulation as require_simulation
