//! The module's functions in an order that compresses well: those of like instructions beside each other, and those
//! that do the same once.
//!
//! Generic code is compiled once for each type, so that many functions are nearly the same; a compressor finds what
//! they share cheaper when they are neighbours.

use std::collections::HashMap;
use std::convert::Infallible;

use anyhow::{Context, Result, bail};
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{CodeSection, FunctionSection, Module};
use wasmparser::{CodeSectionReader, FunctionBody, FunctionSectionReader, Operator, Parser, Payload, TypeRef};

/// The module with its functions in another order.
pub fn ordered(module: &[u8]) -> Result<Vec<u8>> {
    let mut order = Order::of(module)?;
    let mut out = Module::new();
    match order.parse_core_module(&mut out, Parser::new(0), module) {
        Ok(()) => Ok(out.finish()),
        Err(error) => bail!("the module cannot be written anew: {error}"),
    }
}

#[derive(Default)]
struct Order {
    /// Imported functions, which are counted before the module's own.
    imported: u32,
    /// The module's own in their new order, by their old places; of those that do the same the first.
    functions: Vec<usize>,
    /// The new place of each.
    places: Vec<u32>,
}

impl Order {
    fn of(module: &[u8]) -> Result<Self> {
        let mut order = Self::default();
        let (mut types, mut shapes, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(module) {
            match payload.context("the module cannot be read")? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        order.imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                    }
                }
                Payload::FunctionSection(section) => types = section.into_iter().collect::<Result<Vec<u32>, _>>()?,
                Payload::CodeSectionEntry(body) => {
                    shapes.push(shape(module, &body)?);
                    bodies.push(Body::of(module, &body)?);
                }
                _ => {}
            }
        }
        let same = same_as(&types, &bodies, order.imported);
        order.functions = (0..shapes.len()).filter(|function| same[*function] == *function).collect();
        order.functions.sort_by(|a, b| shapes[*a].cmp(&shapes[*b]));
        let mut places = vec![0; shapes.len()];
        for (place, function) in order.functions.iter().enumerate() {
            places[*function] = u32::try_from(place)?;
        }
        order.places = same.iter().map(|function| places[*function]).collect();
        Ok(order)
    }
}

/// A function's bytes, cut where it calls.
struct Body<'a> {
    /// The bytes before each call, and the function that it calls.
    calls: Vec<(&'a [u8], u32)>,
    end: &'a [u8],
}

impl<'a> Body<'a> {
    fn of(module: &'a [u8], body: &FunctionBody<'_>) -> Result<Self> {
        let range = body.range();
        let (mut calls, mut from) = (Vec::new(), range.start);
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            let at = reader.original_position();
            if let Operator::Call { function_index } = reader.read()? {
                calls.push((&module[from..at], function_index));
                from = reader.original_position();
            }
        }
        Ok(Self { calls, end: &module[from..range.end] })
    }
}

/// Of each function the first that does the same: of the same type, with the same instructions, and calls of functions
/// that do the same.
fn same_as(types: &[u32], bodies: &[Body<'_>], imported: u32) -> Vec<usize> {
    let mut same: Vec<usize> = (0..bodies.len()).collect();
    loop {
        let called = |function: u32| match function.checked_sub(imported) {
            Some(own) => imported as usize + same[own as usize],
            None => function as usize,
        };
        let mut first = HashMap::new();
        let next: Vec<usize> = bodies
            .iter()
            .enumerate()
            .map(|(at, body)| {
                let calls: Vec<_> = body.calls.iter().map(|(before, function)| (*before, called(*function))).collect();
                *first.entry((types[at], calls, body.end)).or_insert(at)
            })
            .collect();
        if next == same {
            return same;
        }
        same = next;
    }
}

/// What a function does, apart from the constants, places in memory and functions that it names.
fn shape(module: &[u8], body: &FunctionBody<'_>) -> Result<Vec<u32>> {
    let mut shape = Vec::new();
    let mut reader = body.get_operators_reader()?;
    while !reader.eof() {
        let code = u32::from(module[reader.original_position()]);
        let local = match reader.read()? {
            Operator::LocalGet { local_index }
            | Operator::LocalSet { local_index }
            | Operator::LocalTee { local_index } => local_index + 1,
            _ => 0,
        };
        shape.push(local << 8 | code);
    }
    Ok(shape)
}

impl Reencode for Order {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, Error<Infallible>> {
        let own = function.checked_sub(self.imported).and_then(|own| self.places.get(own as usize));
        Ok(own.map_or(function, |place| self.imported + place))
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        let types = section.into_iter().collect::<Result<Vec<u32>, _>>()?;
        for function in self.functions.clone() {
            functions.function(self.type_index(types[function])?);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        let bodies = section.into_iter().collect::<Result<Vec<_>, _>>()?;
        for function in self.functions.clone() {
            self.parse_function_body(code, bodies[function].clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{
        EntityType, ExportKind, ExportSection, Function, ImportSection, Instruction as I, TypeSection, ValType,
    };

    /// What functions by these names return, as far as they return constants or call each other.
    fn returned(module: &[u8]) -> Vec<(String, i32)> {
        let (mut imported, mut bodies, mut exports) = (0, Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(module) {
            match payload.unwrap() {
                Payload::ImportSection(section) => imported = section.count(),
                Payload::CodeSectionEntry(body) => bodies.push(body),
                Payload::ExportSection(section) => exports.extend(section.into_iter().map(Result::unwrap)),
                _ => {}
            }
        }
        let value = |mut at: u32| loop {
            let mut reader = bodies[(at - imported) as usize].get_operators_reader().unwrap();
            match reader.read().unwrap() {
                wasmparser::Operator::I32Const { value } => break value,
                wasmparser::Operator::Call { function_index } => at = function_index,
                other => panic!("{other:?}"),
            }
        };
        exports.iter().map(|export| (export.name.to_owned(), value(export.index))).collect()
    }

    /// A module of functions that begin so, exported as `f0`, `f1`, …; the first place is an import's.
    fn module(begin: &[I<'_>]) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], [ValType::I32]);
        let mut imports = ImportSection::new();
        imports.import("m", "f", EntityType::Function(0));
        let (mut functions, mut code, mut exports) = (FunctionSection::new(), CodeSection::new(), ExportSection::new());
        for (at, first) in begin.iter().enumerate() {
            functions.function(0);
            let mut body = Function::new([]);
            body.instruction(first).instruction(&I::End);
            code.function(&body);
            exports.export(&format!("f{at}"), ExportKind::Func, 1 + at as u32);
        }
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&functions).section(&exports).section(&code);
        module.finish()
    }

    #[test]
    fn functions_that_do_the_same_are_one() {
        // The third and fourth call functions that do the same; the last one does not.
        let module = module(&[I::I32Const(9), I::I32Const(9), I::Call(1), I::Call(2), I::I32Const(4), I::Call(5)]);
        let made = ordered(&module).unwrap();
        let want = [9, 9, 9, 9, 4, 4];
        let found = |module: &[u8]| returned(module).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!((found(&module), found(&made)), (want.to_vec(), want.to_vec()));
        let functions = Parser::new(0).parse_all(&made).filter_map(|payload| match payload.unwrap() {
            Payload::FunctionSection(section) => Some(section.count()),
            _ => None,
        });
        assert_eq!(functions.sum::<u32>(), 4);
    }

    #[test]
    fn calls_and_exports_follow_their_functions() {
        // The second calls the first, the third the second.
        let module = module(&[I::I32Const(9), I::Call(1), I::Call(2), I::I32Const(4)]);
        let made = ordered(&module).unwrap();
        let want = [("f0", 9), ("f1", 9), ("f2", 9), ("f3", 4)].map(|(name, value)| (name.to_owned(), value));
        assert_eq!(returned(&module), want);
        assert_eq!(returned(&made), want);
        assert_ne!(made, module, "calls stand before constants now");
        assert!(ordered(&module[..module.len() - 1]).is_err());
    }
}
