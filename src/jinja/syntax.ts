/** The parts that a template is made of, as the parser builds them. */
import type { Value } from "./values.ts";

export type Expression = { readonly line: number } & (
  | { readonly kind: "constant"; readonly value: Value }
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "list" | "tuple"; readonly items: readonly Expression[] }
  | { readonly kind: "dict"; readonly entries: readonly (readonly [key: Expression, value: Expression])[] }
  | { readonly kind: "attribute"; readonly of: Expression; readonly name: string }
  | { readonly kind: "item"; readonly of: Expression; readonly key: Expression }
  | {
      readonly kind: "slice";
      readonly from: Expression | undefined;
      readonly to: Expression | undefined;
      readonly step: Expression | undefined;
    }
  | { readonly kind: "call"; readonly of: Expression; readonly given: CallArguments }
  /** `of` is what comes before the bar: undefined in a filter block. */
  | {
      readonly kind: "filter";
      readonly of: Expression | undefined;
      readonly name: string;
      readonly given: CallArguments;
    }
  | { readonly kind: "test"; readonly of: Expression; readonly name: string; readonly given: CallArguments }
  | { readonly kind: "not" | "negative" | "positive"; readonly of: Expression }
  | {
      readonly kind: "binary";
      readonly operator: BinaryOperator;
      readonly left: Expression;
      readonly right: Expression;
    }
  | { readonly kind: "and" | "or"; readonly left: Expression; readonly right: Expression }
  | { readonly kind: "join"; readonly parts: readonly Expression[] }
  | {
      readonly kind: "compare";
      readonly first: Expression;
      readonly rest: readonly (readonly [operator: Comparison, right: Expression])[];
    }
  | {
      readonly kind: "if";
      readonly condition: Expression;
      readonly value: Expression;
      readonly otherwise: Expression | undefined;
    }
);

export type BinaryOperator = "+" | "-" | "*" | "/" | "//" | "%" | "**";
export type Comparison = "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in";

export interface CallArguments {
  readonly positional: readonly Expression[];
  readonly named: readonly (readonly [name: string, value: Expression])[];
  /** `*more` and `**more`. */
  readonly morePositional: Expression | undefined;
  readonly moreNamed: Expression | undefined;
}

/** What can be assigned to. */
export type Target =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "tuple"; readonly items: readonly Target[] }
  | { readonly kind: "namespace"; readonly name: string; readonly attribute: string };

export interface Signature {
  readonly parameters: readonly { readonly name: string; readonly default: Expression | undefined }[];
}

export type Statement = { readonly line: number } & (
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "output"; readonly value: Expression }
  | {
      readonly kind: "if";
      readonly branches: readonly { condition: Expression; body: Body }[];
      readonly otherwise: Body;
    }
  | {
      readonly kind: "for";
      readonly target: Target;
      readonly over: Expression;
      readonly filter: Expression | undefined;
      readonly isRecursive: boolean;
      readonly body: Body;
      readonly otherwise: Body;
    }
  | { readonly kind: "set"; readonly target: Target; readonly value: Expression }
  | {
      readonly kind: "set-block";
      readonly target: Target;
      readonly filters: readonly (Expression & { kind: "filter" })[];
      readonly body: Body;
    }
  | { readonly kind: "macro"; readonly name: string; readonly macro: Macro }
  | { readonly kind: "call-block"; readonly call: Expression; readonly macro: Macro }
  | {
      readonly kind: "filter-block";
      readonly filters: readonly (Expression & { kind: "filter" })[];
      readonly body: Body;
    }
  | {
      readonly kind: "with";
      readonly targets: readonly Target[];
      readonly values: readonly Expression[];
      readonly body: Body;
    }
  /** A body with names of its own: `generation`. */
  | { readonly kind: "scope"; readonly body: Body }
  | { readonly kind: "block"; readonly body: Body }
  | { readonly kind: "break" | "continue" }
);

export type Body = readonly Statement[];

export interface Macro extends Signature {
  readonly body: Body;
  /** Which of `caller`, `varargs` and `kwargs` the body speaks of: what it does not, it does not take. */
  readonly uses: ReadonlySet<string>;
}
