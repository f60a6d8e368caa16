#!/bin/sh
echo '{"a": {"hosts": ["h"], "vars": {"x": "a", "ansible_group_priority": 3}}, "b": {"hosts": ["h"], "vars": {"x": "b"}},
       "ungrouped": {"hosts": ["lone"]}, "all": {"children": ["a", "b", "ungrouped"]}, "_meta": {"hostvars": {}}}'
