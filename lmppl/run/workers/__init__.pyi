from .cluster import over_cluster as over_cluster
from .crew import Crew as Crew
from .crew import Opening as Opening
from .crew import Ways as Ways
from .processes import over_processes as over_processes
from .spread import infer_over as infer_over
from .spread import require_unfinished as require_unfinished
from .spread import require_workers as require_workers
