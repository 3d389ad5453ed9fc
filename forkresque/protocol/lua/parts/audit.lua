-- Tell the audit stream how a claim ended, if it is kept.
--
-- Expects the key audit and the arguments worker and keep: about how many entries to keep, 0 for
-- no stream at all. `job` is the digest of the payload.
local function tell(event, token, name, raw)
  if keep == "0" then return end
  redis.pcall(
    "XADD", audit, "MAXLEN", "~", keep, "*",
    "event", event, "worker", worker, "token", token, "queue", name, "job", redis.sha1hex(raw)
  )
end
