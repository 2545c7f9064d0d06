//! A reader of the pickles inside torch's files that executes nothing.
//!
//! It knows the opcodes that `torch.save` writes for tensors, numbers, strings, tuples, lists and dicts, and the
//! few names that such a pickle needs (`torch._utils._rebuild_tensor_v2`, `collections.OrderedDict`, the storage
//! types). Any other name or opcode is an error. Values live in one arena and refer to each other by index, so
//! neither a deep nor a cyclic pickle can exhaust the program's stack, and each byte of the pickle can only ever
//! cost a bounded number of bytes of memory.

use std::collections::HashMap;
use std::ops::Range;

/// Longest pickle; the pieces of GPT-2 small have a few hundred bytes each.
const MAX_BYTES: usize = 4 << 20;
/// Most values on the stack, in the memo, and in containers.
const MAX_VALUES: usize = 1 << 18;

/// A value, or where it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float,
    /// Bytes of the pickle, valid UTF-8.
    Str(usize, usize),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
    Mark,
}

/// A name that the pickle refers to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Global {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    /// `torch.<name>`, where the name (a range of the pickle) ends in `Storage`.
    StorageType(usize, usize),
}

/// What a persistent id names: an entry `data/<key>` of the archive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageRef {
    /// Ranges of the pickle: the name of the storage's type, and the entry's name.
    pub type_name: (usize, usize),
    pub key: (usize, usize),
    pub elements: i64,
}

/// The arguments of a tensor's reconstruction, unchecked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorRef {
    pub storage: usize,
    pub offset: i64,
    /// Indices of tuples.
    pub shape: usize,
    pub strides: usize,
    /// A dict of what is still to be done to its numbers.
    pub marks: Option<usize>,
}

/// What a pickle says.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub top: Value,
    sequences: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    storages: Vec<StorageRef>,
    tensors: Vec<TensorRef>,
}

impl Pickle {
    /// Reads a whole pickle.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_BYTES {
            return Err(format!("a pickle of {} bytes, more than {MAX_BYTES}", bytes.len()));
        }
        let mut machine = Machine::new(bytes);
        let top = machine.run().map_err(|error| format!("byte {} of its pickle: {error}", machine.at))?;
        Ok(Pickle { top, ..machine.made })
    }

    /// Elements of a tuple or list.
    pub fn sequence(&self, index: usize) -> &[Value] {
        &self.sequences[index]
    }

    /// Pairs of a dict, in the order in which they were set; of equal keys the last one counts.
    pub fn dict(&self, index: usize) -> &[(Value, Value)] {
        &self.dicts[index]
    }

    pub fn storage(&self, index: usize) -> StorageRef {
        self.storages[index]
    }

    pub fn tensor(&self, index: usize) -> TensorRef {
        self.tensors[index]
    }
}

/// What a value is called in an error message.
pub(crate) fn describe(value: Value) -> &'static str {
    match value {
        Value::None => "None",
        Value::Bool(_) => "a boolean",
        Value::Int(_) => "a whole number",
        Value::Float => "a float",
        Value::Str(..) => "a string",
        Value::Tuple(_) => "a tuple",
        Value::List(_) => "a list",
        Value::Dict(_) => "a dict",
        Value::Global(_) => "a class or function",
        Value::Storage(_) => "a storage",
        Value::Tensor(_) => "a tensor",
        Value::Mark => "a mark",
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
    /// Values put into containers so far.
    contained: usize,
    made: Pickle,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let made = Pickle {
            top: Value::None,
            sequences: Vec::new(),
            dicts: Vec::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        };
        Machine { bytes, at: 0, stack: Vec::new(), memo: HashMap::new(), contained: 0, made }
    }

    fn run(&mut self) -> Result<Value, String> {
        loop {
            if self.stack.len() > MAX_VALUES || self.memo.len() > MAX_VALUES || self.contained > MAX_VALUES {
                return Err(format!("more than {MAX_VALUES} values"));
            }
            let opcode = self.u8()?;
            if opcode == b'.' {
                return self.stop();
            }
            self.step(opcode)?;
        }
    }

    fn stop(&mut self) -> Result<Value, String> {
        let top = self.pop()?;
        if !self.stack.is_empty() {
            return Err("it stops with more than one value".to_owned());
        }
        Ok(top)
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO, FRAME
            0x80 => match self.u8()? {
                2..=5 => {}
                other => return Err(format!("pickle protocol {other}; 2 to 5 are known")),
            },
            0x95 => {
                self.take(8)?;
            }
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(number.into()));
            }
            b'K' => {
                let number = self.u8()?;
                self.stack.push(Value::Int(number.into()));
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(number.into()));
            }
            0x8a => self.long()?,
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Float);
            }
            b'X' => {
                let len = self.u32()? as usize;
                self.string(len)?;
            }
            0x8c => {
                let len = self.u8()? as usize;
                self.string(len)?;
            }
            b'(' => self.stack.push(Value::Mark),
            b')' => self.sequence(Vec::new(), Value::Tuple),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).ok_or("the stack is empty")?;
                let values = self.stack.split_off(start);
                if values.contains(&Value::Mark) {
                    return Err("a tuple over a mark".to_owned());
                }
                self.sequence(values, Value::Tuple);
            }
            b't' => {
                let values = self.pop_to_mark()?;
                self.sequence(values, Value::Tuple);
            }
            b']' => self.sequence(Vec::new(), Value::List),
            b'l' => {
                let values = self.pop_to_mark()?;
                self.sequence(values, Value::List);
            }
            b'a' => {
                let value = self.pop()?;
                self.extend_list(&[value])?;
            }
            b'e' => {
                let values = self.pop_to_mark()?;
                self.extend_list(&values)?;
            }
            b'}' => self.new_dict(),
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let values = self.pop_to_mark()?;
                self.extend_dict(&values)?;
            }
            b'q' => {
                let index = self.u8()?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = self.u32()?;
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let index = self.u8()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = self.u32()?;
                self.recall(index)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Str(m0, m1), Value::Str(n0, n1)) = (module, name) else {
                    return Err("a name that is not a string".to_owned());
                };
                self.global(m0..m1, n0..n1)?;
            }
            b'Q' => self.persistent_id()?,
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            other => {
                return Err(format!("opcode 0x{other:02x}, which a checkpoint of tensors does not need"));
            }
        }
        Ok(())
    }

    /// `torch` pickles tensors as calls; these are the calls that are understood.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Global(callee)) = (arguments, callee) else {
            return Err(format!("a call of {} with {}", describe(callee), describe(arguments)));
        };
        let arguments = &self.made.sequences[arguments];
        match (callee, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.new_dict(),
            (
                Global::RebuildTensor,
                &[
                    Value::Storage(storage),
                    Value::Int(offset),
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    ref more @ ..,
                ],
            ) => {
                // Behind them: whether it has a gradient, and hooks, which say nothing about its numbers.
                let marks = match more {
                    [] | [_] | [_, _] | [_, _, Value::None] => None,
                    &[_, _, Value::Dict(marks)] => Some(marks),
                    _ => return Err(format!("a tensor of {} arguments that is not understood", 4 + more.len())),
                };
                self.stack.push(Value::Tensor(self.made.tensors.len()));
                self.made.tensors.push(TensorRef { storage, offset, shape, strides, marks });
            }
            (Global::RebuildParameter, &[Value::Tensor(tensor), ..]) => self.stack.push(Value::Tensor(tensor)),
            _ => return Err(format!("a call with {} arguments that is not understood", arguments.len())),
        }
        Ok(())
    }

    /// Sets attributes of an object. Only dicts have some here (`_metadata` of a `state_dict`), and they say
    /// nothing about the weights.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.stack.last() {
            Some(Value::Dict(_)) => Ok(()),
            Some(&other) => Err(format!("attributes for {}", describe(other))),
            None => Err("the stack is empty".to_owned()),
        }
    }

    fn persistent_id(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let Value::Tuple(index) = id else {
            return Err(format!("a persistent id that is {}", describe(id)));
        };
        let &[
            Value::Str(s0, s1),
            Value::Global(Global::StorageType(t0, t1)),
            Value::Str(k0, k1),
            Value::Str(..),
            Value::Int(elements),
        ] = self.made.sequences[index].as_slice()
        else {
            return Err("a persistent id that names no storage".to_owned());
        };
        if &self.bytes[s0..s1] != b"storage" {
            return Err("a persistent id that names no storage".to_owned());
        }
        self.stack.push(Value::Storage(self.made.storages.len()));
        self.made.storages.push(StorageRef { type_name: (t0, t1), key: (k0, k1), elements });
        Ok(())
    }

    fn global(&mut self, module: Range<usize>, name: Range<usize>) -> Result<(), String> {
        let (m, n) = (&self.bytes[module], &self.bytes[name.clone()]);
        let global = match (m, n) {
            (b"torch._utils", b"_rebuild_tensor_v2" | b"_rebuild_tensor") => Global::RebuildTensor,
            (b"torch._utils", b"_rebuild_parameter") => Global::RebuildParameter,
            (b"collections", b"OrderedDict") => Global::OrderedDict,
            (b"torch", _) if n.ends_with(b"Storage") => Global::StorageType(name.start, name.end),
            _ => {
                let text = |bytes| super::error::shorten(&String::from_utf8_lossy(bytes));
                return Err(format!("it wants to use `{}.{}`, which no checkpoint of tensors needs", text(m), text(n)));
            }
        };
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn sequence(&mut self, values: Vec<Value>, make: fn(usize) -> Value) {
        self.contained += 1 + values.len();
        self.stack.push(make(self.made.sequences.len()));
        self.made.sequences.push(values);
    }

    fn new_dict(&mut self) {
        self.contained += 1;
        self.stack.push(Value::Dict(self.made.dicts.len()));
        self.made.dicts.push(Vec::new());
    }

    fn extend_list(&mut self, values: &[Value]) -> Result<(), String> {
        let Some(&Value::List(index)) = self.stack.last() else {
            return Err("elements for something that is not a list".to_owned());
        };
        self.contained += values.len();
        self.made.sequences[index].extend_from_slice(values);
        Ok(())
    }

    fn extend_dict(&mut self, values: &[Value]) -> Result<(), String> {
        let Some(&Value::Dict(index)) = self.stack.last() else {
            return Err("entries for something that is not a dict".to_owned());
        };
        if !values.len().is_multiple_of(2) {
            return Err("a key without a value".to_owned());
        }
        self.contained += values.len();
        self.made.dicts[index].extend(values.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Result<(), String> {
        let &value = self.stack.last().ok_or("the stack is empty")?;
        if value == Value::Mark {
            return Err("a mark cannot be remembered".to_owned());
        }
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let &value = self.memo.get(&index).ok_or_else(|| format!("nothing was remembered as {index}"))?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, String> {
        match self.stack.pop() {
            None => Err("the stack is empty".to_owned()),
            Some(Value::Mark) => Err("a mark where a value should be".to_owned()),
            Some(value) => Ok(value),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.stack.iter().rposition(|&value| value == Value::Mark).ok_or("no mark on the stack")?;
        let values = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(values)
    }

    fn string(&mut self, len: usize) -> Result<(), String> {
        let range = self.take(len)?;
        if std::str::from_utf8(&self.bytes[range.clone()]).is_err() {
            return Err("a string that is not UTF-8".to_owned());
        }
        self.stack.push(Value::Str(range.start, range.end));
        Ok(())
    }

    /// LONG1: a whole number of up to 255 bytes, of which we take eight.
    fn long(&mut self) -> Result<(), String> {
        let len = self.u8()? as usize;
        let range = self.take(len)?;
        let digits = &self.bytes[range];
        if len > 8 {
            return Err(format!("a whole number of {len} bytes"));
        }
        let fill = if digits.last().is_some_and(|&b| b >= 0x80) { 0xff } else { 0 };
        let mut bytes = [fill; 8];
        bytes[..len].copy_from_slice(digits);
        self.stack.push(Value::Int(i64::from_le_bytes(bytes)));
        Ok(())
    }

    fn line(&mut self) -> Result<Range<usize>, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().take(256).position(|&b| b == b'\n').ok_or("a name without an end")?;
        let range = self.at..self.at + len;
        self.at += len + 1;
        Ok(range)
    }

    fn take(&mut self, len: usize) -> Result<Range<usize>, String> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len()).ok_or("it is cut off")?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let range = self.take(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[range]);
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }
}
