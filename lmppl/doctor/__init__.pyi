from .examination import CHECKS as CHECKS
from .examination import Report as Report
from .examination import examine as examine
from .examination import examine_model as examine_model
from .found import Found as Found
from .patient import THOROUGH as THOROUGH
from .patient import Sizes as Sizes
