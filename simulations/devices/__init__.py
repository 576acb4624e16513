"""Device classes, and the devices of a fleet drawn from them."""

from simulations.devices.availability import Availability
from simulations.devices.battery import Batteries, BatterySpec
from simulations.devices.classes import CLASSES, LINKS, DeviceClass, Link
from simulations.devices.fleet import Fleet

__all__ = ["CLASSES", "LINKS", "Availability", "Batteries", "BatterySpec", "DeviceClass", "Fleet", "Link"]
