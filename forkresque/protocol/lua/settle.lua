-- Settle the job in hand, once, and claim the next one in the same call.
--
-- USES read slot pause shown take audit unlock fail
-- KEYS slot record last processed processed_by failures failures_by failed failed_lists target schedule timestamps workers lease pause paused suspects queues audit list*
-- ARGV worker token outcome entry second digest next keep forget failed_name order head name_and_label*
--
--   last        string  the last token settled; `-` and a token when that claim was recovered
--   failed      list    failure records; FAIL appends `entry`. For failed_lists and failed_name see
--               parts/fail.lua
--   target      where the job goes: its queue for RETRY, REQUEUE (tail) and RELEASE (head, nothing
--               counted), or for RETRY and REQUEUE the bucket of `second`, if that is not 0; any
--               key for DONE, FAIL and DROP. It goes as it came, or as `entry` if there is one
--   timestamps  set     the seconds at which this payload is due, for a `second`
--   digest      of the payload, if a worker died with it before: the job ended, so it is cleared
--   next        the token to claim the next job with, or "" to claim none
--   audit       stream  one entry for each settle and recovery; `keep` says how many, 0 for none
--   list*       list    the queues, by priority; then, if the job holds locks, the hash of the
--               worker's locks and each of them, which the end of the job frees; then as many as
--               `forget` says: keys of any type that end with the job
--   the rest    see claim
--
-- Returns {OK, bad key or "", answer of the claim...}; {ALREADY, ...} when this token was settled
-- before; {LOST} when it is unknown or was recovered, and nothing was changed; {BADKEY, key} when
-- the job cannot go where it should, and nothing was changed. O(queues).
local held = redis.call("GET", slot)
if not held or not starts(held, token .. "\n") then
  if held and next ~= "" and starts(held, next .. "\n") then
    local name, raw = held_job(held)
    return {"ALREADY", "", "JOB", name, raw, redis.call("EXISTS", suspects)}
  end
  local done = redis.call("GET", last)
  if done ~= token and (next == "" or done ~= "-" .. next) then return {"LOST"} end
  if next == "" or held then return {"ALREADY", "", "NONE"} end
  local taken = take(next)
  if taken.err then return taken end
  return {"ALREADY", bad, unpack(taken)}
end

local moves = outcome == "RETRY" or outcome == "REQUEUE" or outcome == "RELEASE"
local delayed = moves and second ~= "0"
local misfit = outcome == "FAIL" and misfit_to_fail(failed, failed_name)
if misfit then return {"BADKEY", misfit} end
if moves and not fits(target, "list") then return {"BADKEY", target} end
if delayed then
  if not fits(schedule, "zset") then return {"BADKEY", schedule} end
  if not fits(timestamps, "set") then return {"BADKEY", timestamps} end
end

local name, raw
if moves or keep ~= "0" then name, raw = held_job(held) end
local taken = next ~= "" and take(next) or {"NONE"}
if taken.err then return taken end
if taken[1] ~= "JOB" then -- else the next claim has overwritten slot and record
  redis.call("DEL", slot, record)
  redis.call("SET", last, token, "EX", 3600)
end

local function count(key)
  local reply = redis.pcall("INCR", key)
  if type(reply) == "table" then bad = key end
end

if outcome == "DONE" then
  count(processed)
  count(processed_by)
elseif outcome == "FAIL" or outcome == "RETRY" then
  count(failures)
  count(failures_by)
end
if outcome == "FAIL" then
  fail(failed, failed_name, entry)
elseif moves then
  redis.call(outcome == "RELEASE" and "LPUSH" or "RPUSH", target, entry ~= "" and entry or raw)
end
if delayed then
  redis.call("SADD", timestamps, "delayed:" .. second)
  redis.call("ZADD", schedule, second, second)
elseif moves then
  redis.pcall("SADD", queues, name)
end
local locks = first_list + lists
if KEYS[locks] then unlock(KEYS[locks], locks + 1) end
for i = #KEYS - forget + 1, #KEYS do
  redis.pcall("DEL", KEYS[i])
end
tell(outcome, token, name, raw)
if digest ~= "" then redis.pcall("HDEL", suspects, digest, digest .. ":host") end
return {"OK", bad, unpack(taken)}
