//! A pickle machine for what `torch.save` writes, and nothing else.
//!
//! Own code, for want of a crate that reads every container and root: candle-core's `pickle` reads zip files
//! only and brings a tensor library along, burn's `pytorch-reader` takes dicts at the root only.
//!
//! Nothing is imported or executed ([`super::globals`] lists all that a file may name). Objects lie in a flat
//! arena and are never copied, so neither depth nor sharing costs anything, and memory is bounded by what was
//! read: a length is checked against what is left of the input before anything is allocated.

use super::globals::{self, Global, Outcome};
use super::object::{Id, Object, Pickle};
use std::collections::HashMap;
use std::io::Read;

/// Real files hold some hundred objects; each costs far more memory than its byte or two in a hostile file.
const MAX_OBJECTS: usize = 1 << 20;
/// Longest module or function name.
const MAX_NAME: usize = 256;

/// Reads one pickle from `input`, of which `left` bytes are left; `left` is lowered by what was read.
///
/// # Errors
/// With the reason and the position, as half a sentence that a path can precede.
pub(super) fn read(input: impl Read, left: &mut u64) -> Result<Pickle, String> {
    let mut machine = Machine {
        input,
        length: *left,
        left: *left,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let root = machine
        .run()
        .map_err(|reason| format!("pickle, byte {}: {reason}", machine.length - machine.left))?;
    *left = machine.left;
    Ok(Pickle { objects: machine.objects, root })
}

struct Machine<R> {
    input: R,
    length: u64,
    left: u64,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<R: Read> Machine<R> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let [opcode] = self.array()?;
            match opcode {
                // PROTO, FRAME: they announce, and bind nothing.
                0x80 => _ = self.array::<1>()?,
                0x95 => _ = self.array::<8>()?,
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Object::None)?,
                0x88 => self.push(Object::Bool(true))?,
                0x89 => self.push(Object::Bool(false))?,
                b'K' => {
                    let [value] = self.array()?;
                    self.push(Object::Int(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Object::Int(value.into()))?;
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Object::Int(value.into()))?;
                }
                0x8a => self.long()?,
                b'G' => {
                    let value = f64::from_be_bytes(self.array()?);
                    self.push(Object::Float(value))?;
                }
                b'X' => self.string(4)?,
                0x8c => self.string(1)?,
                0x8d => self.string(8)?,
                b'B' => self.bytes(4)?,
                b'C' => self.bytes(1)?,
                0x8e => self.bytes(8)?,
                b']' => self.push(Object::List(Vec::new()))?,
                b'}' => self.push(Object::Dict(Vec::new()))?,
                b')' => self.push(Object::Tuple(Vec::new()))?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Object::Tuple(items))?;
                }
                0x85..=0x87 => {
                    let items = self.pop_many(usize::from(opcode - 0x84))?;
                    self.push(Object::Tuple(items))?;
                }
                b'a' => {
                    let items = self.pop_many(1)?;
                    self.append(items)?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let items = self.pop_many(2)?;
                    self.set_items(&items)?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(&items)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Object::Global(Global::find(&module, &name)?))?;
                }
                0x93 => self.stack_global()?,
                // A call of a function, and one of a class: the same for what is allowed.
                b'R' | 0x81 => self.reduce()?,
                b'b' => {
                    self.pop()?;
                    let target = self.top()?;
                    globals::build(&self.objects[target.0 as usize])?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = globals::storage(&self.objects, id)?;
                    self.push(storage)?;
                }
                b'q' => {
                    let [index] = self.array()?;
                    self.memo.insert(index.into(), self.top()?);
                }
                b'r' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.memo.insert(index, self.top()?);
                }
                // MEMOIZE; the memo cannot outgrow u32, for objects cannot.
                0x94 => _ = self.memo.insert(self.memo.len() as u32, self.top()?),
                b'h' => {
                    let [index] = self.array()?;
                    self.recall(index.into())?;
                }
                b'j' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.recall(index)?;
                }
                _ => {
                    return Err(format!(
                        "refuses opcode {opcode:#04x}: not something that torch.save writes for tensors"
                    ));
                }
            }
        }
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<(), String> {
        self.left = self.left.checked_sub(buffer.len() as u64).ok_or("the file ends too early")?;
        self.input.read_exact(buffer).map_err(|e| format!("cannot read: {e}"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    /// Bytes preceded by their number, itself of `width` bytes.
    fn counted(&mut self, width: usize) -> Result<Vec<u8>, String> {
        let mut length = [0; 8];
        self.take(&mut length[..width])?;
        let length = u64::from_le_bytes(length);
        if length > self.left {
            return Err(format!("a string of {length} bytes where {} are left", self.left));
        }
        let mut bytes = vec![0; length as usize];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    fn string(&mut self, width: usize) -> Result<(), String> {
        let text = String::from_utf8(self.counted(width)?).map_err(|_| "a string that is not UTF-8")?;
        self.push(Object::Str(text))
    }

    fn bytes(&mut self, width: usize) -> Result<(), String> {
        let bytes = self.counted(width)?;
        self.push(Object::Bytes(bytes))
    }

    /// LONG1: a little-endian two's complement number.
    fn long(&mut self) -> Result<(), String> {
        let bytes = self.counted(1)?;
        if bytes.len() > 8 {
            return Err(format!("an integer of {} bytes", bytes.len()));
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut value = [if negative { 0xff } else { 0 }; 8];
        value[..bytes.len()].copy_from_slice(&bytes);
        self.push(Object::Int(i64::from_le_bytes(value)))
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        loop {
            match self.array()? {
                [b'\n'] => return String::from_utf8(line).map_err(|_| "a name that is not UTF-8".into()),
                _ if line.len() == MAX_NAME => return Err("a name without end".into()),
                [byte] => line.push(byte),
            }
        }
    }

    fn push(&mut self, object: Object) -> Result<(), String> {
        if self.objects.len() == MAX_OBJECTS {
            return Err(format!("more than {MAX_OBJECTS} objects: not a dataset of tensors"));
        }
        self.stack.push(Id(self.objects.len() as u32));
        self.objects.push(object);
        Ok(())
    }

    /// The stack down to the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, String> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => Err("an instruction without operands".into()),
        }
    }

    fn pop(&mut self) -> Result<Id, String> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let from = self.stack.len().checked_sub(count).filter(|from| *from >= self.floor());
        let from = from.ok_or("an instruction without operands")?;
        Ok(self.stack.split_off(from))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("an instruction without its mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        let list = self.top()?;
        let Object::List(list) = &mut self.objects[list.0 as usize] else {
            return Err("an append to something that is no list".into());
        };
        list.extend(items);
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let dict = self.top()?;
        let (pairs, []) = items.as_chunks() else {
            return Err("a dict with a key that has no value".into());
        };
        let Object::Dict(dict) = &mut self.objects[dict.0 as usize] else {
            return Err("an entry for something that is no dict".into());
        };
        dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    fn stack_global(&mut self) -> Result<(), String> {
        let names = self.pop_many(2)?;
        let text = |id: Id| match &self.objects[id.0 as usize] {
            Object::Str(text) if text.len() <= MAX_NAME => Some(text),
            _ => None,
        };
        let (Some(module), Some(name)) = (text(names[0]), text(names[1])) else {
            return Err("a function without a name".into());
        };
        let global = Global::find(module, name)?;
        self.push(Object::Global(global))
    }

    fn reduce(&mut self) -> Result<(), String> {
        let operands = self.pop_many(2)?;
        let [function, args] = [operands[0], operands[1]].map(|id| &self.objects[id.0 as usize]);
        let (Object::Global(function), Object::Tuple(args)) = (function, args) else {
            return Err("a call of something that is no function".into());
        };
        match globals::call(&self.objects, *function, args)? {
            Outcome::New(object) => self.push(object)?,
            Outcome::Same(id) => self.stack.push(id),
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let id = self.memo.get(&index).ok_or_else(|| format!("memo {index}, which was never set"))?;
        self.stack.push(*id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpickle(bytes: &[u8]) -> Result<Pickle, String> {
        read(bytes, &mut (bytes.len() as u64))
    }

    #[test]
    fn lists_are_shared_through_the_memo() {
        // inner = []; [inner, inner], where the second mention appends to what both are.
        let pickle = unpickle(b"\x80\x02](]q\x01h\x01K\x05ae.").unwrap();
        let lengths: Vec<usize> =
            pickle.root().items().unwrap().map(|item| item.items().unwrap().len()).collect();
        assert_eq!(lengths, [1, 1]);
    }

    #[test]
    fn a_list_may_contain_itself() {
        let pickle = unpickle(b"\x80\x02]q\x00h\x00a.").unwrap();
        let root = pickle.root();
        assert_eq!(root.items().unwrap().next().unwrap().items().unwrap().len(), 1);
    }

    #[test]
    fn depth_and_sharing_cost_nothing() {
        let mut deep = vec![b']'; 200_000];
        deep.extend(vec![b'a'; 199_999]);
        deep.push(b'.');
        assert_eq!(unpickle(&deep).unwrap().objects.len(), 200_000);

        // Each list holds the one before it twice: 2^60 leaves, if they were copied.
        let mut laughs = b"]q\x00".to_vec();
        for i in 0..60 {
            laughs.extend([b']', b'q', i + 1, b'h', i, b'a', b'h', i, b'a']);
        }
        laughs.push(b'.');
        assert_eq!(unpickle(&laughs).unwrap().objects.len(), 61);
    }

    #[test]
    fn hostile_lengths_are_refused_before_allocation() {
        let refused = unpickle(b"\x80\x02X\xff\xff\xff\xff").unwrap_err();
        assert_eq!(refused, "pickle, byte 7: a string of 4294967295 bytes where 0 are left");
        assert!(unpickle(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
        assert!(unpickle(&vec![b'N'; MAX_OBJECTS + 1]).unwrap_err().contains("objects"));
    }

    #[test]
    fn refusals_name_what_was_refused() {
        let refused = |bytes| unpickle(bytes).unwrap_err();
        assert!(refused(b"cos\nsystem\n").contains("refuses `os.system`"));
        assert!(refused(b"\x80\x04\x8c\x02os\x8c\x06system\x93").contains("refuses `os.system`"));
        assert!(refused(b"\x80\x02N0.").contains("refuses opcode 0x30"));
        assert_eq!(refused(b"h\x01"), "pickle, byte 2: memo 1, which was never set");
    }

    #[test]
    fn marks_guard_the_stack() {
        for pickle in [&b"N(R."[..], b"N(\x85.", b"e.", b"t.", b".", b"(.", b"]K\x01(a.", b"}(K\x01u."] {
            assert!(unpickle(pickle).is_err(), "{pickle:?}");
        }
    }

    #[test]
    fn integers_of_every_width() {
        for (bytes, expected) in [
            (&b"K\xff."[..], 255),
            (b"M\xff\xff.", 65_535),
            (b"J\xff\xff\xff\xff.", -1),
            (b"\x8a\x00.", 0),
            (b"\x8a\x01\xff.", -1),
            (b"\x8a\x02\xff\x00.", 255),
        ] {
            let pickle = unpickle(bytes).unwrap();
            assert!(matches!(pickle.objects[0], Object::Int(n) if n == expected), "{:?}", pickle.objects);
        }
        assert!(unpickle(b"\x8a\x09\0\0\0\0\0\0\0\0\0.").is_err());
    }
}
