"""What does the learning of the orders that a simulation's grid was handed."""

from simulations.executors.choice import executor_for
from simulations.executors.executor import Devices, Executor
from simulations.executors.inline import InlineExecutor

__all__ = ["Devices", "Executor", "InlineExecutor", "executor_for"]
