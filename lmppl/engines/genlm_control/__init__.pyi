from .engine import ENGINE as ENGINE
