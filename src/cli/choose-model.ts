/** `--model` as it was typed, as a file: the one that ships, a path, or the name of a model that lies on this machine. */
import { statSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import type { Config } from "../config.ts";
import { home } from "../config/kinds.ts";
import { codeOf, describe, RepriseError } from "../errors.ts";
import { findModels } from "../models/find-models.ts";
import type { FoundModel } from "../models/found-model.ts";
import { modelNamed } from "../models/model-named.ts";
import { shippedModelPath } from "../models/shipped-model.ts";

export interface ChosenModel {
  readonly path: string;
  /** What people call it, where that is not the file's name. */
  readonly name?: string;
}

/** @throws RepriseError MODEL_NOT_FOUND */
export async function chooseModel(config: Pick<Config, "model" | "modelsDir">): Promise<ChosenModel> {
  const { model } = config;
  if (model === "") return { path: shippedModelPath() };
  const path = resolve(model);
  const what = whatLiesAt(path);
  if (what === "file") return { path };
  if (what === "other")
    throw new RepriseError("MODEL_NOT_FOUND", `--model ${path} is not a file; give the path of a .gguf file`);
  if (isPath(model)) throw new RepriseError("MODEL_NOT_FOUND", `cannot read the model ${path}: there is no such file`);
  return modelNamed(model, await modelsHere(config));
}

/** All models on this machine that can be found. @throws RepriseError BAD_CONFIG when a folder that was named is not there */
export async function modelsHere({ modelsDir }: Pick<Config, "modelsDir">): Promise<FoundModel[]> {
  const folders = modelsDir.map((folder) => resolve(folder));
  for (const folder of folders) mustBeFolder(folder);
  return findModels({ home: home(), environment: process.env, folders, shippedPath: shippedModelPath() });
}

function mustBeFolder(folder: string): void {
  let isFolder = false;
  try {
    isFolder = statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true;
  } catch (cause) {
    throw new RepriseError("BAD_CONFIG", `--models-dir ${folder} cannot be read`, { cause });
  }
  if (!isFolder) throw new RepriseError("BAD_CONFIG", `--models-dir ${folder}: there is no such folder`);
}

/** Names have slashes too (`hf.co/somebody/a-model:q4`), but neither begin nor end like this. */
function isPath(typed: string): boolean {
  return isAbsolute(typed) || /^\.{1,2}\//.test(typed) || /\.gguf$/i.test(typed);
}

function whatLiesAt(path: string): "file" | "nothing" | "other" {
  try {
    return statSync(path).isFile() ? "file" : "other";
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return "nothing";
    throw new RepriseError("MODEL_NOT_FOUND", `cannot read the model ${path}: ${describe(error)}`);
  }
}
