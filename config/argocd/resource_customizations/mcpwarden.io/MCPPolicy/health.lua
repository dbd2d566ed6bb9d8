-- The health of an MCPPolicy, from its status. A policy that selects namespaces without servers is in force, so that it
-- can be synced before them; one that selects no namespace waits for one. What is missing never makes it Healthy.
local function health(status, message)
  return {status = status, message = message or ""}
end

local metadata = type(obj.metadata) == "table" and obj.metadata or {}
local status = type(obj.status) == "table" and obj.status or {}

if metadata.deletionTimestamp ~= nil then
  return health("Progressing", "The policy is being deleted.")
end
if metadata.generation == nil or status.observedGeneration ~= metadata.generation then
  return health("Progressing", "The operator has not seen this version of the policy yet.")
end

local ready = nil
if type(status.conditions) == "table" then
  for _, c in ipairs(status.conditions) do
    if type(c) == "table" and c.type == "Ready" then
      ready = c
    end
  end
end
if ready == nil then
  return health("Progressing", "The status lacks the condition Ready.")
end
if ready.status == "True" then
  return health("Healthy", ready.message)
end
if ready.status == "False" and ready.reason == "SelectsNothing" then
  if type(status.namespaces) == "number" and status.namespaces > 0 then
    return health("Healthy", ready.message)
  end
  return health("Progressing", ready.message)
end
if ready.status == "False" then
  return health("Degraded", ready.message)
end
return health("Progressing", ready.message)
