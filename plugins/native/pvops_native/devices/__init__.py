"""The few PC devices that the native platform has, one module each; `bus` connects them to the vCPUs' port space."""
