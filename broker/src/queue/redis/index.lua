-- The index of one pool. Everything it touches is in KEYS, which share a hash slot; every loop is bounded by what the caller
-- passed or by the constants below. The arithmetic is that of fair.rs: integers, well below 2^53.
--
-- ARGV: operation, now in ms, channel to wake on, and the operation's own.
-- KEYS: depth    hash  task -> "w|tenant|priority|not before" (waits) or "r|tenant|since|charged ms" (runs)
--       ready    zset  "tenant|9 - priority|task", all of one score: sorted as text
--       later    zset  task by the time before which it may not start
--       later_of zset  "tenant|time|task", sorted as text
--       active   zset  tenant by its account; it has something ready
--       idle     zset  tenant by its account; it has nothing ready
--       costs    hash  tenant -> what its tasks take, ms
--       weights  hash  tenant -> weight
--       meta     hash  passed: where the tenant stood that was served last; whole: everything was put in
local DEPTH, READY, LATER, LATER_OF, ACTIVE, IDLE, COSTS, WEIGHTS, META = unpack(KEYS)
local op, now, channel = ARGV[1], ARGV[2], ARGV[3]
local call = redis.call

local FIRST_COST_MS, DEFAULT_WEIGHT, UNIT = 10000, 100, 100000
local MAX_IDLE, SOME = 10000, 128

local function whole(number) return string.format('%.0f', number) end
local function passed() return tonumber(call('HGET', META, 'passed') or 0) end

local function charge(ms, tenant)
  local weight = tonumber(call('HGET', WEIGHTS, tenant) or DEFAULT_WEIGHT)
  return math.floor(ms * UNIT / weight)
end

-- === a tenant's account

local function arrive(tenant)
  if call('ZSCORE', ACTIVE, tenant) then return end
  local at = math.max(passed(), tonumber(call('ZSCORE', IDLE, tenant) or 0))
  call('ZREM', IDLE, tenant)
  call('ZADD', ACTIVE, whole(at), tenant)
end

local function leave(tenant)
  local at = call('ZSCORE', ACTIVE, tenant)
  if not at then return end
  call('ZREM', ACTIVE, tenant)
  call('ZADD', IDLE, at, tenant)
  if call('ZCARD', IDLE) > MAX_IDLE then
    -- Who is owed nothing is forgotten.
    for _, other in ipairs(call('ZRANGEBYSCORE', IDLE, '-inf', whole(passed()), 'LIMIT', 0, SOME)) do
      call('ZREM', IDLE, other)
      call('HDEL', COSTS, other)
    end
  end
end

local function shift(tenant, plus, minus)
  local at = call('ZSCORE', ACTIVE, tenant)
  if at then
    call('ZADD', ACTIVE, whole(math.max(0, tonumber(at) + plus - minus)), tenant)
  else
    at = math.max(passed(), tonumber(call('ZSCORE', IDLE, tenant) or 0))
    call('ZADD', IDLE, whole(math.max(0, at + plus - minus)), tenant)
  end
end

local function correct(tenant, charged, took)
  shift(tenant, charge(took, tenant), charge(charged, tenant))
end

-- === a task's places

local function place(tenant, priority, task) return tenant .. '|' .. (9 - priority) .. '|' .. task end
local function place_later(tenant, time, task) return tenant .. '|' .. string.format('%016.0f', time) .. '|' .. task end
local function of(tenant) return '[' .. tenant .. '|', '(' .. tenant .. '}' end

local function waiting(record)
  local tenant, priority, time = string.match(record, '^w|([^|]+)|(%d+)|(-?%d+)$')
  return tenant, tonumber(priority), tonumber(time)
end

local function running(record)
  local tenant, since, charged = string.match(record, '^r|([^|]+)|(-?%d+)|(%d+)$')
  return tenant, tonumber(since), tonumber(charged)
end

local function first_of(tenant)
  local from, to = of(tenant)
  return call('ZRANGEBYLEX', READY, from, to, 'LIMIT', 0, 1)[1]
end

local function make_ready(tenant, priority, task)
  call('ZADD', READY, 0, place(tenant, priority, task))
  arrive(tenant)
end

local function remove(task)
  local record = call('HGET', DEPTH, task)
  if not record then return end
  call('HDEL', DEPTH, task)
  local tenant, priority, time = waiting(record)
  if not tenant then return end
  if call('ZREM', LATER, task) == 1 then
    call('ZREM', LATER_OF, place_later(tenant, time, task))
  elseif call('ZREM', READY, place(tenant, priority, task)) == 1 and not first_of(tenant) then
    leave(tenant)
  end
end

local function offer(task, tenant, priority, time)
  local record = call('HGET', DEPTH, task)
  local new = 'w|' .. tenant .. '|' .. priority .. '|' .. time
  if record then
    if record == new then return false end
    local whose, _, charged = running(record)
    if whose then correct(whose, charged, 0) end
    remove(task)
  end
  call('HSET', DEPTH, task, new)
  if tonumber(time) <= tonumber(now) then
    make_ready(tenant, tonumber(priority), task)
  else
    call('ZADD', LATER, time, task)
    call('ZADD', LATER_OF, 0, place_later(tenant, tonumber(time), task))
  end
  return true
end

local function offers(from, unless_known)
  local changed = false
  for i = from, #ARGV, 4 do
    if not unless_known or call('HEXISTS', DEPTH, ARGV[i]) == 0 then
      changed = offer(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) or changed
    end
  end
  if changed then call('PUBLISH', channel, '') end
end

local function promote()
  for _, task in ipairs(call('ZRANGEBYSCORE', LATER, '-inf', now, 'LIMIT', 0, SOME)) do
    call('ZREM', LATER, task)
    local tenant, priority, time = waiting(call('HGET', DEPTH, task) or '')
    if tenant then
      call('ZREM', LATER_OF, place_later(tenant, time, task))
      make_ready(tenant, priority, task)
    end
  end
end

local function start(task, tenant)
  local record = call('HGET', DEPTH, task)
  local _, priority, time = waiting(record or '')
  local first = call('ZRANGE', ACTIVE, 0, 0, 'WITHSCORES')
  if first[2] then call('HSET', META, 'passed', whole(math.max(passed(), tonumber(first[2])))) end
  local cost = tonumber(call('HGET', COSTS, tenant) or FIRST_COST_MS)
  shift(tenant, charge(cost, tenant), 0)
  remove(task)
  call('HSET', DEPTH, task, 'r|' .. tenant .. '|' .. now .. '|' .. whole(cost))
  return { 'task', task, tenant, whole(priority), whole(time) }
end

local function take(tenant)
  local whose = tenant
  if tenant == '' then whose = call('ZRANGE', ACTIVE, 0, 0)[1] end
  local found = whose and first_of(whose)
  if found then return start(string.match(found, '[^|]+$'), whose) end
  if tenant == '' then
    return { 'empty', call('ZRANGE', LATER, 0, 0, 'WITHSCORES')[2] }
  end
  local from, to = of(tenant)
  local later = call('ZRANGEBYLEX', LATER_OF, from, to, 'LIMIT', 0, 1)[1]
  if later then return { 'empty', string.match(later, '|(%d+)|') } end
  if call('ZCARD', ACTIVE) > 0 then return { 'other' } end
  return { 'empty' }
end

local function settle(task)
  local tenant, since, charged = running(call('HGET', DEPTH, task) or '')
  if not tenant then return remove(task) end
  call('HDEL', DEPTH, task)
  local took = math.max(0, tonumber(now) - since)
  local before = tonumber(call('HGET', COSTS, tenant) or FIRST_COST_MS)
  call('HSET', COSTS, tenant, whole(math.max(1, math.floor((before * 7 + took * 3) / 10))))
  correct(tenant, charged, took)
end

-- === operations

if op == 'offer' then
  offers(4, false)
elseif op == 'restore' then
  offers(4, true)
elseif op == 'restore-running' then
  for i = 4, #ARGV, 2 do
    call('HSETNX', DEPTH, ARGV[i], 'r|' .. ARGV[i + 1] .. '|' .. now .. '|0')
  end
elseif op == 'take' then
  promote()
  local answers = {}
  for i = 4, #ARGV do answers[i - 3] = take(ARGV[i]) end
  return answers
elseif op == 'settle' then
  local changed = false
  for i = 4, #ARGV, 5 do
    settle(ARGV[i])
    if ARGV[i + 1] ~= '' then
      changed = offer(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]) or changed
    end
  end
  if changed then call('PUBLISH', channel, '') end
elseif op == 'remove' then
  for i = 4, #ARGV do remove(ARGV[i]) end
elseif op == 'weigh' then
  call('DEL', WEIGHTS)
  for i = 4, #ARGV, 2 do call('HSET', WEIGHTS, ARGV[i], ARGV[i + 1]) end
else
  return redis.error_reply('ERR no such operation')
end
return { 'done' }
