//! The scripts that read and write retained values at the broker, each in one step.
//!
//! The values of a channel are a hash, `PREFIX slabd:retained:CHANNEL`. A field is the JSON text of
//! a key, or empty for a rule without a key. Its value is a number, a blank, and the message. The
//! number is that of the write, counted in the field `seq`. The field `life` is a random text that
//! changes when the broker has lost values. No key is `seq` or `life`, because those are no JSON.
//!
//! Each script has the hash as `KEYS[1]`, the channel of notices `PREFIX slabd:kept:CHANNEL` as
//! `ARGV[1]`, and the channel itself as `ARGV[2]`. The notices are in [`super::notices`].

/// The start of the names of the hashes.
pub const VALUES: &[u8] = b"slabd:retained:";

/// Removes, of eight random fields, the one that was written first, if there are too many. A number
/// with a blank behind it is found in values only.
macro_rules! trim {
    () => {
        "local K,call=KEYS[1],redis.call
local function trim(own,max)
if call('HLEN',K)-2<=max then return end
local some,least,gone=redis.pcall('HRANDFIELD',K,8,'WITHVALUES')
for i=1,#some,2 do
local n=tonumber(string.match(some[i+1],'^%d+ '))
if n and some[i]~=own and (not least or n<least) then least,gone=n,some[i] end
end
if gone then call('HDEL',K,gone) call('PUBLISH',ARGV[1],'-'..gone) end
end
"
    };
}

/// Keeps a message and publishes it: message, field, maximum number of fields or 0 to remove the
/// field, end of the notice.
pub const WRITE: &[u8] = concat!(
    trim!(),
    "local n,max=call('HINCRBY',K,'seq',1),tonumber(ARGV[5])
if max==0 then call('HDEL',K,ARGV[4])
else call('HSET',K,ARGV[4],n..' '..ARGV[3]) trim(ARGV[4],max) end
call('PUBLISH',ARGV[1],n..ARGV[6])
return call('PUBLISH',ARGV[2],ARGV[3])"
)
.as_bytes();

/// Writes values of messages that were published otherwise: the maximum number of fields, then for
/// each value its field, a number, and `+` with the message or `-` to remove it. It is written if
/// the field is absent, or if its number is not greater. With `*` and the message, the number must
/// be smaller, so the first of several servers wins. Returns the number of those values.
pub const ADOPT: &[u8] = concat!(
    trim!(),
    "local max,count=tonumber(ARGV[3]),0
for i=4,#ARGV,3 do
local f,n=ARGV[i],tonumber(ARGV[i+1])
local v=call('HGET',K,f)
local own=v and (tonumber(string.match(v,'^%d+ ')) or 0) or -1
if string.sub(ARGV[i+2],1,1)=='*' then own=own+1 end
if own<=n then
local new=ARGV[i+1]..' '..string.sub(ARGV[i+2],2)
count=count+1
if ARGV[i+2]=='-' then call('HDEL',K,f)
elseif v~=new then call('HSET',K,f,new) trim(f,max) end
end
end
return count"
)
.as_bytes();

/// Begins after a connect: a token, the life and the number that the server knows, and a new life.
/// The broker has lost all values if it has no life or no possible number. It has gone back to
/// older ones if it has this life with a smaller number. Then the new life has the number behind
/// that one, because the numbers go on from the greater of both.
pub const OPEN: &[u8] = b"local K,call=KEYS[1],redis.call
local n,own=tonumber(call('HGET',K,'seq') or 0) or 0,tonumber(ARGV[5])
local life=call('HGET',K,'life')
if n>=1e14 then n,life=0,false end
if not life then life=ARGV[6]..':0'
elseif life==ARGV[4] and n<own then life=ARGV[6]..':'..n+1 end
n=math.max(n,own)
call('HSET',K,'seq',n,'life',life)
call('PUBLISH',ARGV[1],'='..ARGV[3]..' '..life..' '..n)
return 1";

/// Reads some values: the life, a cursor of HSCAN, the number of fields to look at, and the size of
/// a reply in bytes. Returns 1, the next cursor, the number of all values, and fields with their
/// values. A value that makes the reply too large is null. Returns 0 if the life is another.
pub const READ: &[u8] = b"if redis.call('HGET',KEYS[1],'life')~=ARGV[3] then return {0} end
local r=redis.call('HSCAN',KEYS[1],ARGV[4],'COUNT',ARGV[5])
local out,size={1,r[1],redis.call('HLEN',KEYS[1])-2},0
if #r[2]>12000 then return redis.error_reply('ERR too many small values in one reply') end
for i=1,#r[2],2 do
local f,v=r[2][i],r[2][i+1]
if f~='seq' and f~='life' then
local fits=size+#f+#v<=tonumber(ARGV[6])
if fits then size=size+#f+#v end
out[#out+1]=f
out[#out+1]=fits and v
end
end
return out";

/// Returns the value of a field, or null.
pub const FETCH: &[u8] = b"return redis.call('HGET',KEYS[1],ARGV[3])";

/// Returns 1 and those of some fields behind the life that are absent, or 0 if it is another.
pub const ABSENT: &[u8] = b"if redis.call('HGET',KEYS[1],'life')~=ARGV[3] then return {0} end
local out={1}
for i=4,#ARGV do
if redis.call('HEXISTS',KEYS[1],ARGV[i])==0 then out[#out+1]=ARGV[i] end
end
return out";

/// Publishes a notice.
pub const NOTIFY: &[u8] = b"return redis.call('PUBLISH',ARGV[1],ARGV[3])";
