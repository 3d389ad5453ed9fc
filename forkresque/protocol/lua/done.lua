-- Settle a job that is done, and claim the next one: the usual settle, with as few commands as can be.
--
-- USES slot shown audit
-- KEYS slot record last processed processed_by workers lease pause paused suspects audit list*
-- ARGV worker token next keep head name_and_label*
--
-- Does what settle does for DONE with the same tokens, byte for byte; the keys and arguments are
-- described there and in claim. Returns {key of the wrong type or "", place of the queue from 1,
-- bytes of the next job}, or {key or ""} when no queue has one; nil, with nothing changed, when
-- anything is unusual: a token that is not in hand, a pause, a suspect, a worker or a lease that is
-- gone, a queue of another type. Then settle says what is the matter. O(queues).
local held = redis.call("GET", slot)
if not held or string.sub(held, 1, #token + 1) ~= token .. "\n" then return end
-- Of these keys the lease alone is there as a rule: counted four times, it is told from the others.
if redis.call("EXISTS", lease, lease, lease, lease, pause, paused, suspects) ~= 4 then return end
if redis.pcall("SISMEMBER", workers, worker) == 0 then return end

local raw, place
for i = 0, #KEYS - first_list do
  local head_of_list = redis.pcall("LPOP", KEYS[first_list + i])
  if type(head_of_list) == "table" then return end
  if head_of_list then
    raw, place = head_of_list, i
    break
  end
end
if raw then
  local name = ARGV[first_name_and_label + 2 * place]
  redis.call("SET", slot, next .. "\n" .. #name .. "\n" .. name .. raw)
  local label = ARGV[first_name_and_label + 2 * place + 1]
  redis.pcall("SET", record, head .. label .. ',"payload":' .. shown(raw) .. "}")
else
  redis.call("DEL", slot, record)
  redis.call("SET", last, token, "EX", 3600)
end

local bad = ""
if type(redis.pcall("INCR", processed)) == "table" then bad = processed end
if type(redis.pcall("INCR", processed_by)) == "table" then bad = processed_by end
if keep ~= "0" then tell("DONE", token, held_job(held)) end
if raw then return {bad, place + 1, raw} end
return {bad}
