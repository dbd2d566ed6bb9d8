-- The health of an MCPServer, from its status. What kstatus calls Current is Healthy here, or Suspended for a server that
-- is stopped or in quarantine; Failed is Degraded; InProgress is Progressing. What is missing never makes it Healthy.
local function condition(name)
  if type(obj.status) ~= "table" or type(obj.status.conditions) ~= "table" then
    return nil
  end
  for _, c in ipairs(obj.status.conditions) do
    if type(c) == "table" and c.type == name then
      return c
    end
  end
  return nil
end

local function health(status, message)
  return {status = status, message = message or ""}
end

local metadata = type(obj.metadata) == "table" and obj.metadata or {}
local status = type(obj.status) == "table" and obj.status or {}

if metadata.deletionTimestamp ~= nil then
  return health("Progressing", "The server is being deleted.")
end
if metadata.generation == nil or status.observedGeneration ~= metadata.generation then
  return health("Progressing", "The operator has not seen this version of the spec yet.")
end

local stalled, reconciling, ready = condition("Stalled"), condition("Reconciling"), condition("Ready")
if stalled ~= nil and stalled.status == "True" then
  return health("Degraded", stalled.message)
end
if reconciling ~= nil and reconciling.status == "True" then
  return health("Progressing", reconciling.message)
end
if ready == nil or stalled == nil or reconciling == nil then
  return health("Progressing", "The status lacks the condition Ready, Reconciling or Stalled.")
end
if ready.status ~= "True" or stalled.status ~= "False" or reconciling.status ~= "False" then
  return health("Progressing", ready.message)
end

-- The verdict and the age of secrets do not make a server unhealthy: it runs as declared. They are told beside it.
local message = ready.message or ""
for _, name in ipairs({"PolicyCompliant", "SecretsCurrent"}) do
  local c = condition(name)
  if c ~= nil and c.status == "False" then
    message = message .. " " .. name .. " is False: " .. (c.message or "")
  end
end
if ready.reason == "Stopped" or ready.reason == "Quarantined" then
  return health("Suspended", message)
end
return health("Healthy", message)
