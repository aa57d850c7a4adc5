/** Token ids to text. */
export type Decode = (ids: readonly number[]) => string

/**
 * New logits `[V]` of the token after `ids`, which are prompt (without padding) and answer; the answer begins at `promptLength`.
 * A pure function: what it is given stays as it is, and may be returned where nothing changes.
 */
export type LogitsProcessor = (ids: readonly number[], logits: Float32Array, promptLength: number) => Float32Array

/** Whether a row ends after the last of `ids`, which are prompt and answer; the answer begins at `promptLength`. */
export type StoppingCondition = (ids: readonly number[], promptLength: number) => boolean
