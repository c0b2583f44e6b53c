//! A pickle machine for every protocol of Python's, 0 to 5.
//!
//! Own code, for want of a crate that reads every container and root: candle-core's `pickle` reads zip files only and
//! brings a tensor library along, burn's `pytorch-reader` takes dicts at the root only, and `serde-pickle` refuses objects
//! of classes.
//!
//! Nothing is imported or executed ([`super::names`] lists all that means anything): an object of an unknown class keeps its
//! class's name, its arguments and its state, and is of no use but to tell so. Objects lie in a flat arena and are never
//! copied, so neither depth nor sharing costs anything, and memory is bounded by what was read.

use super::input::{Chunk, Input};
use super::object::{Arena, Blob, Id, MAX_OBJECTS, Object, Pickle};
use super::{calls, rebuild, text};
use std::collections::HashMap;
use std::io::Read;

/// Longest module or function name.
const MAX_NAME: usize = 256;

/// How a pickle lies in its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// Its first byte.
    pub(super) start: u64,
    /// Bytes from there that it may have.
    pub(super) left: u64,
}

/// Reads one pickle from `input`, which is at `span.start` of the file, and lowers `span` by what was read.
/// `is_big_endian` is of torch's storages.
///
/// # Errors
/// With the reason and the position, as half a sentence that a path can precede.
pub(super) fn read(input: impl Read, span: &mut Span, is_big_endian: bool) -> Result<Pickle, String> {
    let mut machine = Machine {
        input: Input::new(input, span.start, span.left),
        arena: Arena::new(is_big_endian),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    let root = machine.run();
    let read = machine.input.read();
    let root = root.map_err(|reason| format!("pickle, byte {read}: {reason}"))?;
    *span = Span { start: span.start + read, left: machine.input.left() };
    Ok(machine.arena.finish(root))
}

struct Machine<R> {
    input: Input<R>,
    arena: Arena,
    stack: Vec<Id>,
    /// Heights of the stack at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<R: Read> Machine<R> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let [opcode] = self.input.array()?;
            self.arena.read = self.input.read();
            if self.stack.len().max(self.marks.len()) > MAX_OBJECTS {
                return Err(format!("more than {MAX_OBJECTS} objects at a time"));
            }
            match opcode {
                // PROTO, FRAME: they announce, and bind nothing.
                0x80 => _ = self.input.array::<1>()?,
                0x95 => _ = self.input.array::<8>()?,
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' | b'1' | b'2' => self.drop_or_repeat(opcode)?,
                b'N' | 0x88 | 0x89 | b'I' | b'K' | b'M' | b'J' | b'L' | 0x8a | 0x8b | b'F' | b'G' => {
                    let number = self.number(opcode)?;
                    self.push(number)?;
                }
                b'S' | b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 => self.bytes(opcode)?,
                b'V' | b'X' | 0x8c | 0x8d => self.string(opcode)?,
                b']' => self.push(Object::List(Vec::new()))?,
                b'}' => self.push(Object::Dict(Vec::new()))?,
                b')' => self.push(Object::Tuple(Vec::new()))?,
                0x8f => self.push(Object::Set(Vec::new()))?,
                b't' | b'l' | b'd' | 0x91 => self.collect(opcode)?,
                0x85..=0x87 => {
                    let items = self.pop_many(usize::from(opcode - 0x84))?;
                    self.push(Object::Tuple(items))?;
                }
                b'a' => {
                    let items = self.pop_many(1)?;
                    self.append(items)?;
                }
                b'e' | 0x90 => {
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
                b'c' | 0x93 | 0x82..=0x84 => self.global(opcode)?,
                b'R' | 0x81 | 0x92 | b'i' | b'o' => self.call(opcode)?,
                b'b' => {
                    let state = self.pop()?;
                    let target = self.top()?;
                    calls::build(&mut self.arena, target, state)?;
                }
                b'P' => {
                    self.input.line()?;
                    let id = self.arena.opaque("an object that is not in this file")?;
                    self.stack.push(id);
                }
                b'Q' => {
                    let id = self.pop()?;
                    let id = rebuild::persistent(&mut self.arena, id)?;
                    self.stack.push(id);
                }
                0x97 => {
                    let id = self.arena.opaque("a buffer that is not in this file")?;
                    self.stack.push(id);
                }
                // READONLY_BUFFER: says nothing of the values.
                0x98 => {}
                b'p' | b'q' | b'r' | 0x94 => self.memoize(opcode)?,
                b'g' | b'h' | b'j' => self.recall(opcode)?,
                _ => return Err(format!("{opcode:#04x}, which is not an instruction of any pickle")),
            }
        }
    }

    /// POP, POP_MARK and DUP.
    fn drop_or_repeat(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            b'2' => self.stack.push(self.top()?),
            b'0' if self.stack.len() > self.floor() => _ = self.stack.pop(),
            b'0' => _ = self.marks.pop().ok_or("an instruction without operands")?,
            _ => _ = self.pop_to_mark()?,
        }
        Ok(())
    }

    /// Anything that holds no other object: None, booleans, integers and floats.
    fn number(&mut self, opcode: u8) -> Result<Object, String> {
        Ok(match opcode {
            b'N' => Object::None,
            0x88 | 0x89 => Object::Bool(opcode == 0x88),
            b'I' => text::int(&self.input.line()?)?,
            b'L' => text::long(&self.input.line()?)?,
            b'F' => text::float(&self.input.line()?)?,
            b'K' => Object::Int(i64::from(u8::from_le_bytes(self.input.array()?))),
            b'M' => Object::Int(i64::from(u16::from_le_bytes(self.input.array()?))),
            b'J' => Object::Int(i64::from(i32::from_le_bytes(self.input.array()?))),
            b'G' => Object::Float(f64::from_be_bytes(self.input.array()?)),
            // LONG1, LONG4: a little-endian two's complement number.
            _ => match self.input.chunk(if opcode == 0x8a { 1 } else { 4 })? {
                Chunk::Read(bytes) if bytes.len() <= 8 => {
                    let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                    let mut value = [if is_negative { 0xff } else { 0 }; 8];
                    value[..bytes.len()].copy_from_slice(&bytes);
                    Object::Int(i64::from_le_bytes(value))
                }
                _ => Object::Opaque(text::LONG.into()),
            },
        })
    }

    fn bytes(&mut self, opcode: u8) -> Result<(), String> {
        let chunk = match opcode {
            b'S' => Chunk::Read(text::quoted(&self.input.line()?)?),
            b'C' | b'U' => self.input.chunk(1)?,
            b'B' | b'T' => self.input.chunk(4)?,
            _ => self.input.chunk(8)?,
        };
        self.push(match chunk {
            Chunk::Read(bytes) => Object::Bytes(bytes),
            Chunk::Passed { start, length, head } => Object::Blob(Box::new(Blob { start, length, head })),
        })
    }

    fn string(&mut self, opcode: u8) -> Result<(), String> {
        let text = match opcode {
            b'V' => text::unicode(&self.input.line()?)?,
            0x8c => String::from_utf8(self.input.bytes(1)?).ok(),
            b'X' => String::from_utf8(self.input.bytes(4)?).ok(),
            _ => String::from_utf8(self.input.bytes(8)?).ok(),
        };
        self.push(match text {
            Some(text) => Object::Str(text),
            // Python writes lone surrogates, as in paths that are not UTF-8.
            None => Object::Opaque("a string that is not Unicode".into()),
        })
    }

    /// A tuple, list, dict or frozenset of what lies above the mark.
    fn collect(&mut self, opcode: u8) -> Result<(), String> {
        let items = self.pop_to_mark()?;
        match opcode {
            b't' => self.push(Object::Tuple(items)),
            b'l' => self.push(Object::List(items)),
            0x91 => self.push(Object::Set(items)),
            _ => {
                self.push(Object::Dict(Vec::new()))?;
                self.set_items(&items)
            }
        }
    }

    fn push(&mut self, object: Object) -> Result<(), String> {
        let id = self.arena.push(object)?;
        self.stack.push(id);
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
        let target = self.top()?;
        match self.arena.get_mut(target) {
            Object::List(list) | Object::Set(list) => list.extend(items),
            Object::Instance(instance) => instance.items.extend(items),
            Object::Opaque(_) | Object::Tensor(_) | Object::NumpyArray => {}
            _ => return Err("an append to something that is not a list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        let target = self.top()?;
        let (pairs, []) = items.as_chunks() else {
            return Err("a dict with a key that has no value".into());
        };
        let pairs = pairs.iter().map(|[key, value]| (*key, *value));
        match self.arena.get_mut(target) {
            Object::Dict(dict) => dict.extend(pairs),
            Object::Instance(instance) => instance.entries.extend(pairs),
            Object::Opaque(_) => {}
            _ => return Err("an entry for something that is not a dict".into()),
        }
        Ok(())
    }

    /// GLOBAL, STACK_GLOBAL, and EXT1, EXT2 and EXT4, whose codes mean something to the writer alone.
    fn global(&mut self, opcode: u8) -> Result<(), String> {
        let id = match opcode {
            b'c' => self.named()?,
            0x93 => {
                let names = self.pop_many(2)?;
                let text = |id: Id| match self.arena.get(id) {
                    Object::Str(text) if text.len() <= MAX_NAME => Some(text.clone()),
                    _ => None,
                };
                let (Some(module), Some(name)) = (text(names[0]), text(names[1])) else {
                    return Err("a function without a name".into());
                };
                self.arena.global(&module, &name)?
            }
            _ => {
                let code = self.input.number(1 << (opcode - 0x82))?;
                self.arena.global("copyreg", &format!("extension {code}"))?
            }
        };
        self.stack.push(id);
        Ok(())
    }

    /// A function by the two lines that name it.
    fn named(&mut self) -> Result<Id, String> {
        let mut name = || {
            let line = Some(self.input.line()?).filter(|line| line.len() <= MAX_NAME);
            let name = line.and_then(|line| String::from_utf8(line).ok());
            name.ok_or_else(|| "a function without a name".to_owned())
        };
        let (module, name) = (name()?, name()?);
        self.arena.global(&module, &name)
    }

    /// REDUCE, NEWOBJ, NEWOBJ_EX, INST and OBJ.
    fn call(&mut self, opcode: u8) -> Result<(), String> {
        let (function, args) = match opcode {
            b'i' => {
                let class = self.named()?;
                let items = self.pop_to_mark()?;
                (class, self.arena.push(Object::Tuple(items))?)
            }
            b'o' => {
                let mut items = self.pop_to_mark()?;
                if items.is_empty() {
                    return Err("an object without a class".into());
                }
                (items.remove(0), self.arena.push(Object::Tuple(items))?)
            }
            // Keyword arguments say no more of what cannot be made.
            0x92 => {
                let operands = self.pop_many(3)?;
                (operands[0], operands[1])
            }
            _ => {
                let operands = self.pop_many(2)?;
                (operands[0], operands[1])
            }
        };
        let made = calls::call(&mut self.arena, function, args, opcode != b'R')?;
        self.stack.push(made);
        Ok(())
    }

    fn index(&mut self, opcode: u8) -> Result<u32, String> {
        Ok(match opcode {
            b'p' | b'g' => {
                let line = String::from_utf8(self.input.line()?).unwrap_or_default();
                line.parse().map_err(|_| "a memo without a number")?
            }
            b'q' | b'h' => self.input.number(1)? as u32,
            _ => self.input.number(4)? as u32,
        })
    }

    fn memoize(&mut self, opcode: u8) -> Result<(), String> {
        // MEMOIZE counts by itself; the memo cannot outgrow u32, for objects cannot.
        let index = if opcode == 0x94 { self.memo.len() as u32 } else { self.index(opcode)? };
        self.memo.insert(index, self.top()?);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Result<(), String> {
        let index = self.index(opcode)?;
        let id = self.memo.get(&index).ok_or_else(|| format!("memo {index}, which was never set"))?;
        self.stack.push(*id);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
