#!/usr/bin/env python3
import json

print(json.dumps({
    "gpu": {"hosts": ["g1", "g2"], "vars": {"x": 1}, "children": ["old"]},
    "old": {"hosts": ["g3"]},
    "_meta": {"hostvars": {"g1": {"ansible_host": "10.0.0.1", "x": 2}, "nobody": {"y": 1}}},
}))
