-- Claim the next job: move it from its queue into the worker's slot.
--
-- USES read slot pause shown take
-- KEYS slot record workers lease pause paused suspects queues list*
-- ARGV worker token order head name_and_label*
--
--   slot     string  token, queue and bytes of the job in hand
--   record   string  what the worker performs, for other clients to read
--   lease    string  the right of the worker's master to claim; Redis lets it expire
--   pause    string  "true" pauses everybody
--   paused   set     queues to leave alone
--   queues   set     all queue names; read, so that a change of it rings
--   list*    list    the queues, by priority
--   order    their places from 0, in the order to look at them, or "" for as they come
--   head     the record up to the queue's name
--
-- Returns {JOB, queue, payload, suspects?}, {SAME, ...} when this token has claimed before,
-- {BUSY, token} when another one has, {UNREG}, {ORPHAN}, {PAUSED}, {EMPTY}; then the key of a
-- queue that had to be skipped for its type, or "", and how many jobs a JOB has left in its queue.
-- An EMPTY answer has read every queue that it may take from, so a client that tracks its reads hears
-- of the next job. O(queues).
local held = redis.call("GET", slot)
if held then
  if starts(held, token .. "\n") then
    local name, raw = held_job(held)
    return {"SAME", name, raw, redis.call("EXISTS", suspects), "", 0}
  end
  return {"BUSY", string.match(held, "^[^\n]*"), "", 0, "", 0}
end
local taken = take(token)
if taken.err then return taken end
if taken[1] == "EMPTY" then
  redis.call("EXISTS", queues)
  local resting = resting_queues()
  for i = 0, lists - 1 do
    if not resting[ARGV[first_name_and_label + 2 * i]] then
      redis.pcall("LLEN", KEYS[first_list + i])
    end
  end
end
local left = place and redis.call("LLEN", KEYS[first_list + place]) or 0
return {taken[1], taken[2] or "", taken[3] or "", taken[4] or 0, bad, left}
