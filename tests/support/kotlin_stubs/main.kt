import ai.nasedge.example.PreprocessingTest

fun main() {
    PreprocessingTest().preprocessesTheGoldenImagesAsInTraining()
    println("preprocessed as recorded")
}
