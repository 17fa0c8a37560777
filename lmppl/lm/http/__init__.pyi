from .load import describe_served as describe_served
from .load import load_served as load_served
from .model import ServedModel as ServedModel
